"""Every probed cell as a table, and the cells of one sequence in the form of llama-bench."""

from __future__ import annotations

from typing import Any

from llama_bench.derive.words import show, ways

ROWS_SHOWN = 200
_HEADS = ("model", "size", "params", "backend", "threads", "test", "t/s")
_LEFT = ("model", "backend")


def told(tables) -> dict[str, Any]:
    """{"columns", "rows", "total", "text"}: shown text of the cells, numbers of them in all, and
    llama-bench's table; columns without any number are left out."""
    cells = tables["cells"].dropna(subset=["median_seconds"])
    names = [
        "Model",
        "Way",
        "Cell",
        "Median",
        "95 % interval",
        "p90",
        "p99",
        "Processor",
        "Repeats",
    ]
    names += ["Tokens/s", "MFU", "MBU", "Of roofline", "J/token", "Price per M tokens"]
    rows = [_row(cell) for cell in cells.head(ROWS_SHOWN).itertuples()]
    kept = [
        place
        for place in range(len(names))
        if place < 3 or any(row[place] != show.NOTHING for row in rows)
    ]
    if len(ways.found(cells)) < 2:
        kept.remove(1)
    return {
        "columns": [names[place] for place in kept],
        "texts": 2 if 1 not in kept else 3,  # columns that hold no number
        "rows": [[row[place] for place in kept] for row in rows],
        "total": len(cells),
        "text": llama_bench(cells),
    }


def _row(cell) -> list[str]:
    busy = not show.absent(cell.busy) and bool(cell.busy)
    low, high = cell.median_low_seconds, cell.median_high_seconds
    interval = show.NOTHING
    if not show.absent(low):
        interval = f"{show.duration(low)} to {show.duration(high)}"
    return [
        cell.model,
        ways.name((cell.engine, cell.precision)),
        f"{cell.phase} {cell.batch:.0f} × {cell.context:.0f}{', busy' if busy else ''}",
        show.duration(cell.median_seconds),
        interval,
        show.duration(cell.p90_seconds),
        show.duration(cell.p99_seconds),
        show.duration(cell.median_processor_seconds),
        show.exact(cell.repeats),
        show.digits(cell.tokens_per_second),
        show.percent(cell.mfu),
        show.percent(cell.mbu),
        show.percent(cell.roofline_share),
        show.digits(cell.joules_per_token),
        show.digits(cell.price_per_million_tokens),
    ]


def llama_bench(cells) -> str:
    """Cells of batch 1 as llama.cpp's llama-bench prints them (Markdown): pp512 is a prompt of 512
    tokens, tg8 @ d504 eight tokens written after 504; mean ± sample standard deviation. "" of none.
    """
    cells = cells[cells["phase"].isin(("prefill", "decode")) & (cells["batch"] == 1)]
    cells = cells.dropna(subset=["mean_tokens_per_second"])
    if not len(cells):
        return ""
    lines = [_line(cell) for cell in cells.itertuples()]
    widths = [max(map(len, column)) for column in zip(_HEADS, *lines, strict=True)]
    rule = [
        "-" * width if name in _LEFT else "-" * (width - 1) + ":"
        for name, width in zip(_HEADS, widths, strict=True)
    ]
    return "\n".join(_joined(line, widths) for line in (_HEADS, rule, *lines))


def _line(cell) -> tuple[str, ...]:
    spread = cell.tokens_per_second_deviation
    speed = f"{cell.mean_tokens_per_second:.2f}"
    return (
        f"{cell.model} {cell.precision}",
        show.NOTHING if show.absent(cell.weight_bytes) else _size(cell.weight_bytes),
        _parameters(cell.parameters_all),
        f"{str(cell.device_kind).upper()}, {cell.engine}",
        show.exact(cell.threads),
        _test(cell),
        speed if show.absent(spread) else f"{speed} ± {spread:.2f}",
    )


def _test(cell) -> str:
    if cell.phase == "prefill":
        return f"pp{cell.context:.0f}"
    before = cell.context - cell.tokens
    return f"tg{cell.tokens:.0f}" + (f" @ d{before:.0f}" if before else "")


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


def _parameters(count: float) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"


def _joined(line, widths) -> str:
    cells = [
        text.ljust(width) if name in _LEFT else text.rjust(width)
        for name, text, width in zip(_HEADS, line, widths, strict=True)
    ]
    return f"| {' | '.join(cells)} |"
