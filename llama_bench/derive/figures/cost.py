"""What a size costs to run: tokens per second of each phase, and memory."""

from __future__ import annotations

from collections.abc import Iterator

import seaborn as sns

from llama_bench.derive import drawing, show
from llama_bench.derive.drawing import Figure

PHASES = {
    "prefill": "Reading the prompt (prefill)",
    "decode": "Writing text (decode)",
    "train": "A training step",
}


def draw(tables, fits) -> Iterator[Figure]:
    speeds = tables["speeds"].dropna(subset=["tokens_per_second", "parameters_without_embeddings"])
    present = set(speeds["phase"])
    for phase in [*PHASES, *sorted(present - set(PHASES))]:
        if phase in present:
            yield _speed(speeds[speeds["phase"] == phase], phase)
    yield from _memory(tables["memory"])


def _speed(rows, phase: str) -> Figure:
    figure, ax = drawing.axes()
    contexts, batches = sorted(rows["context"].unique()), sorted(rows["batch"].unique())
    rows = rows.assign(context=rows["context"].map(int), batch=rows["batch"].map(int))
    trained = rows[rows["origin"] == "trained"]
    colours, shapes = drawing.shades(list(map(int, contexts)), of="context"), drawing.marks(batches)
    for context in map(int, contexts):
        for batch in map(int, batches):
            cell = trained[(trained["context"] == context) & (trained["batch"] == batch)]
            if len(cell):
                sns.lineplot(
                    cell,
                    x="parameters_without_embeddings",
                    y="tokens_per_second",
                    ax=ax,
                    estimator="median",
                    errorbar=("pi", 80),
                    err_style="bars",
                    color=colours[context],
                    marker=shapes[batch],
                    legend=False,
                    markeredgecolor="white",
                    markeredgewidth=0.6,
                    label=f"{batch} × {context}",
                )
    note = _loaded_speeds(ax, rows[rows["origin"] == "pretrained"], colours)
    drawing.finish(
        figure, ax, x=drawing.PARAMETERS, y="Tokens per second", legend="Batch ×\ncontext"
    )
    repeats = int(rows.groupby(["run", "batch", "context"]).size().max())
    spread = f", bars hold the middle 80 % of up to {repeats} repeats"
    return Figure(
        f"speed-{phase}",
        "cost",
        f"{PHASES.get(phase, phase)}: tokens per second",
        f"Median{spread if repeats > 1 else ' of one repeat'}; "
        f"on {show.listed(sorted(rows['device'].dropna().unique()))}.{note}",
        figure,
    )


def _loaded_speeds(ax, rows, colours) -> str:
    """Models trained elsewhere: a dark-edged mark each, in the colour of the context."""
    models = list(rows.sort_values("parameters_without_embeddings")["model"].unique())
    for place, model in enumerate(models):
        mark = drawing.FOREIGN_MARKERS[place % len(drawing.FOREIGN_MARKERS)]
        mine = rows[rows["model"] == model]
        medians = mine.groupby(["batch", "context"], as_index=False).median(numeric_only=True)
        for cell in medians.itertuples():
            ax.plot(
                cell.parameters_without_embeddings,
                cell.tokens_per_second,
                mark,
                ms=9,
                color=colours[int(cell.context)],
                mec=drawing.INK,
                mew=0.9,
                zorder=4,
            )
        ax.plot([], [], mark, ms=8, color="none", mec=drawing.INK, label=model)
    return " Marks with a dark edge are models trained elsewhere." if models else ""


def _memory(memory) -> Iterator[Figure]:
    """Of each phase the largest cell that has a figure, and the weights alone."""
    known = memory.dropna(subset=["peak_bytes", "parameters_all"])
    known = known[known["status"].fillna("ok") == "ok"]
    if not len(known):
        return
    figure, ax = drawing.axes()
    colours = dict(zip(PHASES, sns.color_palette("colorblind", len(PHASES)), strict=True))
    for phase, marker in drawing.marks(list(PHASES)).items():
        rows = known[known["phase"] == phase]
        if len(rows):
            _largest_cell(ax, rows, phase, colours[phase], marker)
    weights = known.dropna(subset=["weight_bytes"]).drop_duplicates("run")
    weights = weights.sort_values("parameters_all")
    mebibytes = weights["weight_bytes"] / 2**20
    ax.plot(weights["parameters_all"], mebibytes, label="weights alone", **drawing.REFERENCE)
    sizes, legend = "Parameters, embeddings included", "Batch × context"
    drawing.finish(figure, ax, x=sizes, y="Peak memory (MiB)", legend=legend)
    caption = (
        "Peak memory of the largest cell probed in each phase, less what interpreter and libraries "
        "take before the model is there."
    )
    if _has(known, "pretrained"):
        caption += " Stars are models trained elsewhere."
    if len(known) < len(memory):
        without = show.plural(len(memory) - len(known), "cell")
        caption += f" {without} gave no figure; see what failed."
    yield Figure("memory", "cost", "Memory against size", caption, figure)


def _largest_cell(ax, rows, phase: str, colour, marker: str) -> None:
    batch, context = rows[["batch", "context"]].max()
    rows = rows[(rows["batch"] == batch) & (rows["context"] == context)]
    label = f"{phase} {batch:.0f} × {context:.0f}"
    kinds = {
        "trained": {"marker": marker, "ls": "-", "mec": "white"},
        "pretrained": {"marker": "*", "ls": "none", "mec": drawing.INK, "ms": 9},
    }
    for origin, kind in kinds.items():
        mine = rows[rows["origin"] == origin].sort_values("parameters_all")
        if len(mine):
            mebibytes = mine["peak_bytes"] / 2**20
            ax.plot(mine["parameters_all"], mebibytes, color=colour, mew=0.6, label=label, **kind)
            label = None


def _has(rows, origin: str) -> bool:
    return bool((rows["origin"] == origin).any())
