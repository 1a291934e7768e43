"""What a user waits for: the first token and each further one, against batch; the cold start; and
the energy of a token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas
import seaborn as sns

from llama_bench.derive.figures import drawing, probed
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.words import costtext, show, ways

_WAITS = {
    "prefill": ("latency-prefill", "Time to first token (s)", "Time to first token against batch"),
    "decode": (
        "latency-decode",
        "Time per output token (s)",
        "Time per output token against batch",
    ),
}
_MODELS = 4  # lines; of more sizes the smallest, the largest and two between
_BARS = 6  # with room for the names of model, engine and precision
_PARTS = {
    "import_seconds": "interpreter,\nlibraries",
    "load_seconds": "weights",
    "first_token_seconds": "first token",
}


def against_batch(cells, phase: str, section: str) -> Iterator[Figure]:
    """At the longest context: of each sequence, whatever the others of its batch get."""
    rows = cells[cells["phase"] == phase]
    rows = rows[rows["context"] == rows["context"].max()]
    if rows["batch"].nunique() < 2:
        return
    steps = rows["tokens"] / rows["batch"] if phase == "decode" else 1
    rows = rows.assign(
        wait=rows["median_seconds"] / steps,
        low=rows["median_low_seconds"] / steps,
        high=rows["median_high_seconds"] / steps,
    )
    figure, ax = drawing.axes()
    legend, found, about = _waiting(rows)
    for each in found:
        probed.draw(ax, each, "batch", "wait", ("low", "high"))
    name, axis, title = _WAITS[phase]
    batches = rows["batch"].unique()
    drawing.finish(figure, ax, x="Batch (sequences)", y=axis, legend=legend, x_ticks=batches)
    caption = (
        f"Medians with {costtext.INTERVAL}; context {rows['context'].iloc[0]:.0f}, "
        f"{about}; sampling excluded." + probed.notes(rows)
    )
    yield Figure(name, section, title, caption, figure)


def _waiting(rows) -> tuple[str, list[probed.Series], str]:
    """Series by model, or of the largest model by way where there are several."""
    found = ways.found(rows)
    if len(found) > 1:
        largest = rows[rows[probed.SIZE] == rows[probed.SIZE].max()]
        parts = {"\n".join(way): ways.of(largest, way) for way in found}
        parts = {label: mine for label, mine in parts.items() if len(mine)}
        legend, about = "Engine,\nprecision", f"model {largest['model'].iloc[0]}"
        colours = dict(zip(parts, sns.color_palette("colorblind", len(parts)), strict=True))
    else:
        models = list(rows.sort_values(probed.SIZE)["model"].unique())
        if len(models) > _MODELS:
            models = [models[round(place)] for place in np.linspace(0, len(models) - 1, _MODELS)]
        parts = {model: rows[rows["model"] == model] for model in models}
        legend, about, colours = "Model", ways.name(found[0]), drawing.shades(models)
    marks = drawing.marks(list(parts))
    listed = [probed.Series(name, part, colours[name], marks[name]) for name, part in parts.items()]
    return legend, listed, about


def energy(cells, section: str) -> Iterator[Figure]:
    """By phase, at the least batch and the longest context."""
    rows = ways.first(cells.dropna(subset=["joules_per_token"]))
    phases = list(dict.fromkeys(rows["phase"]))
    if not phases:
        return
    figure, ax = drawing.axes()
    colours, marks = sns.color_palette("colorblind", len(phases)), drawing.marks(phases)
    for phase, colour in zip(phases, colours, strict=True):
        each = probed.Series(phase, ways.corner(rows, phase), colour, marks[phase])
        probed.draw(ax, each, probed.SIZE, "joules_per_token")
    drawing.finish(figure, ax, x=drawing.PARAMETERS, y="Joules per token", legend="Phase")
    corner = ways.corner(rows, phases[0])
    source = show.listed(sorted(rows["energy_source"].dropna().unique()))
    caption = (
        f"From the device’s own counter ({source}), over all repeats of a cell; batch "
        f"{corner['batch'].iloc[0]:.0f}, context {corner['context'].iloc[0]:.0f}."
    )
    yield Figure("energy", section, "Energy per token", caption + probed.notes(rows), figure)


def cold_start(tables, section: str) -> Iterator[Figure]:
    """A bar for every model and way of starting it, made of the parts that are known; of too many
    those of the largest model."""
    starts = tables["speeds"]
    starts = starts[starts["phase"] == "load"].dropna(subset=[probed.SIZE])
    if not len(starts):
        return
    found, parts = ways.found(starts), list(_PARTS)
    if len(found) > 1 and starts["run"].nunique() > _BARS:
        starts = starts[starts[probed.SIZE] == starts[probed.SIZE].max()]
    medians = starts.groupby(["model", probed.SIZE, *ways.COLUMNS], as_index=False)[parts].median()
    rows = pandas.concat([ways.of(medians, way) for way in found])
    rows = rows.sort_values(probed.SIZE, kind="stable")
    figure, ax = drawing.axes()
    places, below = np.arange(len(rows)), np.zeros(len(rows))
    for (part, name), colour in zip(_PARTS.items(), sns.color_palette("crest", 3), strict=True):
        heights = rows[part].fillna(0).to_numpy()
        ax.bar(places, heights, bottom=below, color=colour, label=name, width=0.6)
        below = below + heights
    names = rows["model"]
    if len(found) > 1:
        names = ["\n".join(each) for each in rows[["model", *ways.COLUMNS]].itertuples(index=False)]
    ax.set_xticks(places, names)
    drawing.finish_bars(figure, ax, x="Model", y="Seconds to the first token", legend="Start")
    yield Figure("cold-start", section, "Cold start", _start_words(starts, found), figure)


def _start_words(starts, found: list[ways.Way]) -> str:
    count = show.plural(int(starts["repeat"].max()) + 1, "start")
    said = f"A fresh process each time, medians of {count}"
    said += f"; {ways.name(found[0])}." if len(found) == 1 else "."
    whole = starts.loc[starts["import_seconds"].isna(), "engine"].unique()
    if len(whole):
        said += (
            f" Of {show.listed(whole)} interpreter, libraries and weights are one time, that of "
            "the weights’ colour."
        )
    return said + probed.notes(starts)
