"""Memory: against size, against context, and the batches that it has room for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import seaborn as sns

from llama_bench.derive.figures import drawing, probed
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.figures.roofline import PHASES
from llama_bench.derive.words import show, ways

ALL = "parameters_all"
_PARTS = {
    "weight_bytes": "weights",
    "kv_bytes": "key-value\ncache",
    "activation_bytes": "activations",
}


def against_size(memory, section: str) -> Iterator[Figure]:
    """Of each phase the largest cell that has a figure, and the weights alone; with several ways
    the decode of each."""
    known = memory.dropna(subset=["peak_bytes", ALL])
    known = known[known["status"] == "ok"]
    if not len(known):
        return
    known = known.assign(mebibytes=known["peak_bytes"] / 2**20, busy=False)
    figure, ax = drawing.axes()
    legend, found = _series(known)
    for each in found:
        probed.draw(ax, each, ALL, "mebibytes")
    weights = ways.first(known).dropna(subset=["weight_bytes"]).drop_duplicates("run")
    weights = weights.sort_values(ALL)
    ax.plot(
        weights[ALL], weights["weight_bytes"] / 2**20, label="weights alone", **drawing.REFERENCE
    )
    sizes = "Parameters, embeddings included"
    drawing.finish(figure, ax, x=sizes, y="Peak memory (MiB)", legend=legend)
    caption = (
        "Peak memory of the largest cell probed, less what interpreter and libraries "
        "take before the model is there." + probed.notes(known)
    )
    lost = len(memory[memory["phase"] != "load"].dropna(subset=["status"])) - len(known)
    if lost > 0:
        caption += f" {show.plural(lost, 'cell')} gave no figure; see what failed."
    yield Figure("memory", section, "Memory against size", caption, figure)


def _series(known) -> tuple[str, list[probed.Series]]:
    found = ways.found(known)
    if len(found) > 1:
        keys = {"\n".join(way): ways.of(known[known["phase"] == "decode"], way) for way in found}
    else:
        keys = {phase: known[known["phase"] == phase] for phase in PHASES}
    colours = sns.color_palette("colorblind", len(keys))
    listed = []
    for (label, rows), colour, marker in zip(keys.items(), colours, drawing.MARKERS, strict=False):
        if len(rows):
            batch, context = rows[["batch", "context"]].max()
            rows = rows[(rows["batch"] == batch) & (rows["context"] == context)]
            label = f"{label}\n{batch:.0f} × {context:.0f}"
            listed.append(probed.Series(label, rows, colour, marker))
    return "Batch × context", listed


def against_context(memory, section: str) -> Iterator[Figure]:
    """What the peak of the largest model is made of: prefill, largest batch."""
    rows = ways.first(memory[memory["status"] == "ok"])
    rows = rows[rows["phase"] == "prefill"].dropna(subset=[*_PARTS, ALL])
    rows = rows[rows[ALL] == rows[ALL].max()]
    rows = rows[(rows["batch"] == rows["batch"].max())].drop_duplicates("context")
    rows = rows.sort_values("context")
    if len(rows) < 2:
        return
    figure, ax = drawing.axes()
    places, below = np.arange(len(rows)), np.zeros(len(rows))
    for (part, name), colour in zip(_PARTS.items(), sns.color_palette("crest", 3), strict=True):
        heights = rows[part].to_numpy() / 2**20
        ax.bar(places, heights, bottom=below, color=colour, label=name, width=0.6)
        below = below + heights
    ax.set_xticks(places, [show.exact(context) for context in rows["context"]])
    drawing.finish_bars(figure, ax, x="Context (tokens)", y="Memory (MiB)", legend="Peak")
    off = (rows["kv_bytes"] / rows["kv_formula_bytes"] - 1).abs().max()
    caption = (
        f"{rows['model'].iloc[0]}, prefill of batch {rows['batch'].iloc[0]:.0f}. The cache as "
        f"measured differs from its formula (2 × layers × key-value heads × head size × bytes × "
        f"tokens) by {show.percent(off)} at most."
    )
    yield Figure("memory-context", section, "Memory against context", caption, figure)


def largest_batches(tables, section: str) -> Iterator[Figure]:
    rows = ways.first(tables["largest_batches"].dropna(subset=["batch", ALL]))
    rows = rows[rows["phase"] == "decode"].assign(busy=False)
    if rows["context"].nunique() < 2:
        return
    figure, ax = drawing.axes()
    models = list(rows.sort_values(ALL)["model"].unique())
    colours, marks = drawing.shades(models), drawing.marks(models)
    for model in models:
        each = probed.Series(model, rows[rows["model"] == model], colours[model], marks[model])
        probed.draw(ax, each, "context", "batch")
    contexts = sorted(rows["context"].unique())
    axes = {"x": "Context (tokens)", "y": "Largest batch"}
    drawing.finish(figure, ax, **axes, legend="Model")
    ax.set_xticks(contexts, [show.exact(context) for context in contexts])
    caption = "The largest batch of sequences that decodes without running out of memory."
    if (rows["limited_by"] == "most").any():
        caption += f" At {show.exact(rows['batch'].max())} the search ended before memory did."
    yield Figure("largest-batch", section, "The largest batch that fits", caption, figure)
