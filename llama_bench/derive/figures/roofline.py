"""Tokens per second against size under the device's roofline, and how much of that is reached."""

from __future__ import annotations

from collections.abc import Iterator

import seaborn as sns

from llama_bench.derive.figures import drawing, probed
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.words import show, ways

PHASES = {
    "prefill": "Reading the prompt (prefill)",
    "decode": "Writing text (decode)",
    "train": "A training step",
}
_BOUND = {
    "prefill": "floating-point operations over the rate of a matrix product, or bytes over the "
    "bandwidth of a copy, whichever takes longer",
    "decode": "bytes of weights and key-value cache over the bandwidth of a copy (or operations over "
    "the rate of a matrix product, if that takes longer)",
    "train": "floating-point operations over the rate of a matrix product",
}
_SHARES = {
    ("prefill", "mfu"): "prefill, MFU",
    ("decode", "mbu"): "decode, MBU",
    ("train", "mfu"): "train, MFU",
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
    caption = "Medians of the repeats, with the bootstrap’s 95 % interval." + probed.way_note(rows)
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


def shares(cells, section: str) -> Iterator[Figure]:
    """MFU of prefill and training, MBU of decode, at one reader's cell and the largest batch."""
    cells = ways.first(cells)
    figure, ax = drawing.axes()
    colours = sns.color_palette("colorblind", len(_SHARES))
    drawn = []
    for ((phase, share), label), colour in zip(_SHARES.items(), colours, strict=True):
        rows = cells[cells["phase"] == phase].dropna(subset=[share])
        rows = rows[rows["context"] == rows["context"].max()]
        for batch, line in zip(
            sorted({rows["batch"].min(), rows["batch"].max()}), "so", strict=False
        ):
            mine = rows[rows["batch"] == batch]
            mine = mine.assign(percent=100 * mine[share])
            named = f"{label}\nbatch {batch:.0f}"
            if len(mine):
                each = probed.Series(named, mine, colour, line)
                probed.draw(ax, each, probed.SIZE, "percent")
                drawn.append(mine)
    if not drawn:
        drawing.discard(figure)
        return
    axes = {"x": drawing.PARAMETERS, "y": "Reached of the measured rate (%)"}
    drawing.finish(figure, ax, **axes, legend="Phase")
    first = ways.name(ways.found(cells)[0])
    contexts = sorted({f"{rows['context'].iloc[0]:.0f}" for rows in drawn})
    caption = (
        "MFU: operations over those of a matrix product as measured on this device; MBU: bytes of "
        f"weights and cache over those of a measured copy. Context {show.listed(contexts)}; {first}."
    )
    caption += _vendor_words(cells) + probed.notes(cells)
    yield Figure("roofline-shares", section, "How much of the device is used", caption, figure)


def _vendor_words(cells) -> str:
    known = cells.dropna(subset=["vendor_mbu", "mbu"])
    known = known[known["mbu"] > 0]
    if not len(known):
        return ""
    lower = known["vendor_mbu"].iloc[0] / known["mbu"].iloc[0]
    return f" Of the vendor’s dense figures, MBU is {show.digits(lower, 2)} times as much."
