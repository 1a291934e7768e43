"""Tokens per second against size under the device's roofline, and how much of that is reached."""

from __future__ import annotations

from collections.abc import Iterator

from llama_bench.derive.figures import drawing, probed
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.words import costtext

PHASES = {
    "prefill": "Reading the prompt (prefill)",
    "decode": "Writing text (decode)",
    "train": "A training step",
}
_BOUND = {
    "prefill": "floating-point operations over the rate of a matrix product, or bytes over the "
    "bandwidth of a copy, whichever takes longer",
    "decode": "bytes of weights and key-value cache over the bandwidth of a copy (or operations "
    "over the rate of a matrix product, if that takes longer)",
    "train": "floating-point operations over the rate of a matrix product",
}
_SHARES = {
    "prefill": ("mfu", "Floating-point operations a second over those of a large matrix product"),
    "decode": ("mbu", "Bytes of weights and cache a second over those of a large copy"),
}


def speed(cells, phase: str, section: str) -> Iterator[Figure]:
    rows = cells[cells["phase"] == phase].dropna(subset=["tokens_per_second"])
    if not len(rows):
        return
    rows = rows.assign(
        low=rows["tokens"] / rows["median_high_seconds"],
        high=rows["tokens"] / rows["median_low_seconds"],
        roof=rows["tokens"] / rows["roofline_seconds"],
    )
    figure, ax = drawing.axes()
    legend, found = probed.series(rows)
    for each in found:
        probed.draw(ax, each, probed.SIZE, "tokens_per_second", ("low", "high"))
        roof = each.rows.dropna(subset=["roof"]).sort_values(probed.SIZE)
        look = drawing.REFERENCE | {"color": each.colour, "marker": "_", "ms": 5}
        ax.plot(roof[probed.SIZE], roof["roof"], **look)
    roofed = rows["roof"].notna().any()
    if roofed:
        ax.plot([], [], label="roofline", **drawing.REFERENCE)
    drawing.finish(figure, ax, x=drawing.PARAMETERS, y="Tokens per second", legend=legend)
    caption = f"Medians of the rounds’ medians, with {costtext.INTERVAL}." + probed.way_note(rows)
    caption += _roof_words(rows, phase) if roofed else ""
    name = PHASES.get(phase, phase)
    title = f"{name}: tokens per second"
    yield Figure(f"speed-{phase}", section, title, caption + probed.notes(rows), figure)


def _roof_words(rows, phase: str) -> str:
    said = f" Dashed, the measured roofline: {_BOUND[phase]}."
    if (rows["roofline_share"] > 1).any():
        said += (
            " Points above it read weights from the processor’s caches, which are faster than the "
            "memory that was measured."
        )
    return said


def share(cells, phase: str, section: str) -> Iterator[Figure]:
    """What of the measured rate a phase reaches: of the one that mostly limits it."""
    column, rate = _SHARES[phase]
    rows = cells[cells["phase"] == phase].dropna(subset=[column])
    if not len(rows):
        return
    rows = rows.assign(percent=100 * rows[column])
    figure, ax = drawing.axes()
    legend, found = probed.series(rows)
    for each in found:
        probed.draw(ax, each, probed.SIZE, "percent")
    name = column.upper()
    drawing.finish(figure, ax, x=drawing.PARAMETERS, y=f"{name} (%)", legend=legend)
    caption = f"{rate}, as measured on this device.{probed.way_note(rows)}"
    caption += _vendor_words(rows, column) + probed.notes(rows)
    title = f"{PHASES[phase]}: {name}"
    yield Figure(f"{column}-{phase}", section, title, caption, figure)


def _vendor_words(rows, column: str) -> str:
    known = rows.dropna(subset=[f"vendor_{column}"])
    known = known[known[column] > 0]
    ratios = sorted({f"{ratio:.2g}" for ratio in known[f"vendor_{column}"] / known[column]})
    if not ratios:
        return ""
    return f" Of the vendor’s dense figure it is {' or '.join(ratios)} times that."
