"""What the repeats of one timing say together: middle, tail, and how sure the middle is.

Times of repeats have a long tail on one side (whatever disturbs a repeat makes it slower), so the
median stands for them and not the mean: that of the rounds' medians, since a round in which repeats
are fast holds more of them. Two intervals are made of it, and the wider one is told. One takes each
repeat for a draw of its own: the percentile bootstrap's (Efron 1979, section 3), which for a median
needs no drawing, for the chance that a resample's m-th smallest value lies at or below the j-th
smallest of n is that of at least m successes in n trials of chance j/n. Repeats that follow each
other are alike, though: what disturbs them lasts for seconds. The other interval takes each round
for a draw, and they are spread over the probe's life: between two of the ordered medians of rounds
lies the true one with a chance that no distribution enters (Thompson 1936, Annals of Mathematical
Statistics 7).

Neither is enough where something lasted longer than a round, for it may last longer than the probe
too, or begin with the next: rounds that differ by more than their repeats do (Kruskal & Wallis
1952, Journal of the American Statistical Association 47) show that it did. Other programs do that,
and other guests of a host, which no guest sees. The range then begins with the fastest repeat, for
whatever disturbs a repeat makes it slower (beside other programs, with the time that the work takes
when it waits for no other), and ends with the slowest ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LEVEL = 0.95


def summary(
    seconds: Sequence[float],
    round_repeats: Sequence[int] | None = None,
    alone: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The columns of `cells` that say how long a repeat takes; {} of none. `round_repeats` is how
    many there are of each round, in order; `alone`, of work beside other programs, what each would
    have taken without them."""
    if not len(seconds):
        return {}
    low, high = interval(seconds, round_repeats, alone)
    parts = _rounds(seconds, round_repeats)
    p90, p99 = (float(np.quantile(seconds, share)) for share in (0.9, 0.99))
    return {
        "repeats": len(seconds),
        "median_seconds": median(seconds, round_repeats),
        "median_low_seconds": low,
        "median_high_seconds": high,
        "rounds_differ": rounds_differ(parts) if parts else None,
        "p90_seconds": p90,
        "p99_seconds": p99,
    }


def median(seconds: Sequence[float], round_repeats: Sequence[int] | None) -> float:
    return float(np.median(_medians(seconds, round_repeats)))


def _medians(seconds: Sequence[float], round_repeats: Sequence[int] | None) -> list[float]:
    """Of the rounds; without rounds each repeat is one."""
    parts = _rounds(seconds, round_repeats)
    return [float(np.median(part)) for part in parts] or list(seconds)


def _rounds(seconds: Sequence[float], round_repeats: Sequence[int] | None) -> list[np.ndarray]:
    """The repeats of each; none of a timing in one go."""
    if not round_repeats or len(round_repeats) < 2:
        return []
    return np.split(np.asarray(seconds, float), np.cumsum(round_repeats)[:-1])


def rounds_differ(parts: Sequence[np.ndarray]) -> bool:
    """Whether rounds lie further apart than repeats within them explain, by the test of Kruskal
    and Wallis, which no distribution enters."""
    if len(parts) < 2 or np.ptp(np.concatenate(parts)) == 0:
        return False
    from scipy.stats import kruskal

    return bool(kruskal(*parts).pvalue < 1 - LEVEL)


def interval(
    seconds: Sequence[float],
    round_repeats: Sequence[int] | None,
    alone: Sequence[float] | None = None,
) -> tuple[float | None, float | None]:
    """Of the median: the wider of what single repeats, whole rounds and, where rounds differ or
    others were at work, the range of all repeats say, to either side. None of one repeat."""
    if len(seconds) < 2:
        return None, None
    ends, parts = [median_interval(seconds)], _rounds(seconds, round_repeats)
    if len(parts) > 1:
        ends.append(ordered_interval(_medians(seconds, round_repeats)))
    if alone is not None or rounds_differ(parts):
        slowest = float(np.quantile(seconds, (1 + LEVEL) / 2))
        ends.append((float(min(seconds if alone is None else alone)), slowest))
    lows, highs = zip(*ends, strict=True)
    return min(lows), max(highs)


def ordered_interval(medians: Sequence[float]) -> tuple[float, float]:
    """From the k-th smallest to the k-th largest, k being the highest that leaves LEVEL between
    them; 1 of fewer than nine, which of six leaves 0.969, of five 0.938."""
    from scipy.special import bdtr

    ordered, count = sorted(medians), len(medians)
    place = 0
    while 2 * (place + 1) < count and 2 * bdtr(place + 1, count, 0.5) <= 1 - LEVEL:
        place += 1
    return ordered[place], ordered[-1 - place]


def median_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Both ends are among the values. Of an even number the lower end is that of the lower middle
    value, the upper end that of the upper one. One value has no interval."""
    from scipy.special import bdtrc

    ordered, count = np.sort(np.asarray(values, float)), len(values)
    if count < 2:
        return None, None
    shares = np.arange(1, count + 1) / count
    tail = (1 - LEVEL) / 2
    lower, upper = (count + 1) // 2, count // 2 + 1
    low, high = (
        ordered[np.argmax(bdtrc(middle - 1, count, shares) >= share)]
        for middle, share in ((lower, tail), (upper, 1 - tail))
    )
    return float(low), float(high)


def mean_rate(rates: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation, as llama-bench prints them."""
    if not len(rates):
        return None, None
    spread = float(np.std(rates, ddof=1)) if len(rates) > 1 else None
    return float(np.mean(rates)), spread
