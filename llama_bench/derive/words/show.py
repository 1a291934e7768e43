"""How numbers are shown to people: three digits, a unit that fits, a dash where there is none."""

from __future__ import annotations

import math

NOTHING = "–"
_DECIMAL = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def absent(value) -> bool:
    return value is None or str(value) in ("nan", "<NA>", "None", "")


def holds(flag) -> bool:
    """Of a flag that may be missing: whether it is known to be true."""
    return not absent(flag) and bool(flag)


def digits(value, count: int = 3) -> str:
    """1234.5 -> 1,230; 0.041234 -> 0.0412; 1.5e15 -> 1.50 × 10¹⁵. Not a number gives a dash."""
    if absent(value):
        return NOTHING
    value = float(value)
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{count - 1}e}"))))
    if exponent >= 7 or exponent < -4:
        return scientific(value, count)
    rounded = round(value, count - 1 - exponent)
    return f"{rounded:,.{max(0, count - 1 - exponent)}f}".replace("-", "−")


def scientific(value: float, count: int = 3) -> str:
    mantissa, _, exponent = f"{value:.{count - 1}e}".partition("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")


def power(value: float) -> str:
    """1e12 -> 10¹², 3e11 -> 3 × 10¹¹: what stands at a tick."""
    mantissa, _, exponent = f"{value:e}".partition("e")
    raised = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return raised if float(mantissa) == 1 else f"{float(mantissa):g} × {raised}"


def short(value, count: int = 3) -> str:
    """1570000 -> 1.57M, for labels and axes."""
    return NOTHING if absent(value) else _scaled(float(value), _DECIMAL, count, "")


def exact(value) -> str:
    """1572864 -> 1,572,864."""
    return NOTHING if absent(value) else f"{round(float(value)):,}"


def binary(value, count: int = 3) -> str:
    """Bytes in MiB and the like."""
    if absent(value):
        return NOTHING
    return _scaled(float(value), _BINARY, count, " ") if value >= 1024 else f"{value:.0f} B"


def duration(seconds) -> str:
    """0.0032 -> 3.20 ms; 75 -> 1 min 15 s."""
    if absent(seconds):
        return NOTHING
    seconds = float(seconds)
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale or unit == "µs":
            return f"{digits(seconds / scale)} {unit}"
    raise AssertionError


def percent(share, count: int = 2) -> str:
    return NOTHING if absent(share) else f"{digits(100 * float(share), count)} %"


def plus_minus(value, error, least: int = 0) -> str:
    """0.476 ± 0.078 -> 0.48 ± 0.08: so many `places`, and `least` at least."""
    if absent(value) or absent(error) or not error:
        return digits(value)
    count = max(least, places(value, error))
    value = round(value, count) + 0.0  # no −0.0
    return f"{value:,.{count}f} ± {error:.{count}f}".replace("-", "−")


def places(value: float, error: float) -> int:
    """Decimal places of a number with an error (not 0): as the error's first digit (two where it
    is 1), and the value's own first digit where that is not below a hundredth of the error."""
    first, _, exponent = f"{abs(error):.1e}".partition("e")
    count = (first[0] == "1") - int(exponent)
    if abs(value) >= abs(error) / 100:
        count = max(count, -math.floor(math.log10(abs(value))))
    return min(6, max(0, count))


def interval(low, high) -> str:
    """0.531 to 1.02 -> 0.53 to 1.02: two digits of the width, three of the larger end at most."""
    if absent(low) or absent(high) or not (math.isfinite(low) and math.isfinite(high)):
        return f"{digits(low)} to {digits(high)}"
    largest, width = max(abs(low), abs(high)), abs(high - low)
    if largest == 0 or largest >= 1e7 or largest < 1e-4:
        return f"{digits(low)} to {digits(high)}"
    most = 2 - math.floor(math.log10(largest))
    places = max(0, min(most, 1 - math.floor(math.log10(width))) if width > 0 else most)
    return f"{low:,.{places}f} to {high:,.{places}f}".replace("-", "−")


def held(share) -> str:
    """How often an interval held what it was to hold; nothing where that was not measured."""
    return "" if absent(share) else f"held {percent(share)}"


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def listed(words) -> str:
    """a, b and c."""
    words = [str(word) for word in words]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _scaled(value: float, scales, count: int, gap: str) -> str:
    for scale, suffix in scales:
        # 999,950 is 1M and not 1000k
        if abs(value) >= scale * (1 - 0.5 * 10**-count):
            return f"{float(f'{value / scale:.{count}g}'):,.{count + 3}g}{gap}{suffix}"
    return f"{value:.{count}g}"
