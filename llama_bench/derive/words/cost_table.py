"""Every probed cell as a table, and the cells of one sequence in the form of llama-bench."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_bench.derive.words import show, ways

ROWS_SHOWN = 200
_HEADS = ("model", "size", "params", "backend", "threads", "test", "t/s")
_LEFT = ("model", "backend")


def told(tables) -> dict[str, Any]:
    """{"columns", "texts", "rows", "total", "text"}: shown text of the cells, how many columns hold
    no number, numbers of them in all, and llama-bench's table; columns that have nothing to show
    are left out."""
    cells = tables["cells"].dropna(subset=["median_seconds"])
    place = ["run", "model", "phase", "batch", "context"]
    memory = tables["memory"][[*place, "peak_bytes", "baseline_bytes"]].drop_duplicates(place)
    shown = cells.head(ROWS_SHOWN).merge(memory, on=place, how="left")
    columns = {name: [text(cell) for cell in shown.itertuples()] for name, text in _COLUMNS.items()}
    kept = {
        name: texts
        for name, texts in columns.items()
        if name in _TEXTS or any(text != show.NOTHING for text in texts)
    }
    if len(ways.found(cells)) < 2:
        del kept["Way"]
    return {
        "columns": [*kept],
        "texts": len(_TEXTS & kept.keys()),
        "rows": [list(row) for row in zip(*kept.values(), strict=True)],
        "total": len(cells),
        "text": llama_bench(cells),
    }


def _place(cell) -> str:
    busy = ", busy" if show.holds(cell.busy) else ""
    return f"{cell.phase} {cell.batch:.0f} × {cell.context:.0f}{busy}"


def _interval(cell) -> str:
    low, high = cell.median_low_seconds, cell.median_high_seconds
    return show.NOTHING if show.absent(low) else f"{show.duration(low)} to {show.duration(high)}"


_TEXTS = {"Model", "Way", "Cell"}
_COLUMNS: dict[str, Callable[[Any], str]] = {
    "Model": lambda cell: cell.model,
    "Way": lambda cell: ways.name((cell.engine, cell.precision)),
    "Cell": _place,
    "Median": lambda cell: show.duration(cell.median_seconds),
    "95 % interval": _interval,
    "p90": lambda cell: show.duration(cell.p90_seconds),
    "p99": lambda cell: show.duration(cell.p99_seconds),
    "Processor": lambda cell: show.duration(cell.median_processor_seconds),
    "Sampling": lambda cell: show.duration(cell.sampling_seconds),
    "Repeats": lambda cell: show.exact(cell.repeats),
    "Tokens/s": lambda cell: show.digits(cell.tokens_per_second),
    "MFU": lambda cell: show.percent(cell.mfu),
    "MBU": lambda cell: show.percent(cell.mbu),
    "Of roofline": lambda cell: show.percent(cell.roofline_share),
    "Peak memory": lambda cell: show.binary(cell.peak_bytes),
    "Baseline": lambda cell: show.binary(cell.baseline_bytes),
    "J/token": lambda cell: show.digits(cell.joules_per_token),
    "Price per M tokens": lambda cell: show.digits(cell.price_per_million_tokens),
}


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
