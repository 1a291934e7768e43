"""One fine-tuning against its labelled data: loss, score, and what pre-training is worth in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.tables.transfer import BEYOND, USED
from llama_bench.derive.words import scores, transfertext
from llama_bench.derive.words.finetunings import Tuning

SECTION = "finetuning"
_EXAMPLES = "Labelled examples"


def draw(tables, tuning: Tuning) -> Iterator[Figure]:
    """Only where a model learned from several amounts of them."""
    points = tuning.by_data
    amounts = points.groupby(["model", "method", "zero"])["examples"].nunique()
    if not len(points) or amounts.max() < 2:
        return
    yield _loss(tuning, points)
    if points["score"].notna().any():
        yield _score(tuning, points)
    points = transfertext.of(tables["transfer"], tuning.name)
    if points["state"].isin([USED, BEYOND]).any():
        yield _transfer(tables, tuning, points)


def _loss(tuning: Tuning, points) -> Figure:
    figure, ax = drawing.axes()
    method = _lines(ax, points, "loss")
    y = "Test loss (nats per answer token)"
    _finish(figure, ax, points, y, y_scale="log")
    caption = f"Loss of the answers alone, on the test part. {_said(points, method)}"
    title = f"{tuning.name}: loss against labelled data"
    return Figure(tuning.figure("data-loss"), tuning.section, title, caption, figure)


def _score(tuning: Tuning, points) -> Figure:
    figure, ax = drawing.axes()
    method = _lines(ax, points, "score", "error")
    _finish(figure, ax, points, scores.axis_name(tuning.metric), y_scale="linear")
    caption = f"On the test part. {_said(points, method)}"
    if points["error"].notna().any():
        caption += " Bars are ±1.96 standard errors over items."
    title = f"{tuning.name}: {scores.metric_name(tuning.metric)} against labelled data"
    return Figure(tuning.figure("data-score"), tuning.section, title, caption, figure)


def _lines(ax, points, column: str, error: str | None = None) -> str:
    """A line per size, dotted from zero; of several methods the first, which is returned."""
    method = points.loc[~points["zero"], "method"].iloc[0]
    models = list(dict.fromkeys(points.sort_values("params", kind="stable")["model"]))
    colours, shapes = drawing.shades(models), drawing.marks(models)
    shown = points[points["zero"] | (points["method"] == method)].dropna(subset=[column])
    for (model, zero), mine in shown.groupby(["model", "zero"], sort=False):
        mine = mine.sort_values("examples")
        bars = scores.WIDTH * mine[error].to_numpy(float) if error else np.zeros(1)
        ax.errorbar(
            mine["examples"] * (0.97 if zero else 1.03) if error else mine["examples"],
            mine[column],
            yerr=np.nan_to_num(bars) if np.nan_to_num(bars).any() else None,
            color=colours[model],
            marker=shapes[model],
            ls=":" if zero else "-",
            mfc="white" if zero else colours[model],
            mec=colours[model] if zero else "white",
            mew=0.6,
            elinewidth=0.8,
            label=None if zero else model,
        )
    if points["zero"].any():
        look = {"color": drawing.SOFT, "ls": ":", "marker": "o", "mfc": "white"}
        ax.plot([], [], **look, label="from zero")
    return method


def _finish(figure, ax, points, y: str, y_scale: str) -> None:
    ticks = points["examples"].unique()
    look = {"legend": "Model", "y_scale": y_scale, "x_ticks": ticks}
    drawing.finish(figure, ax, x=_EXAMPLES, y=y, **look)


def _said(points, method: str) -> str:
    said = f"Solid: the trained base fine-tuned ({method})"
    if points["zero"].any():
        said += "; dotted, hollow: the same shape from random weights"
    return f"{said}; smaller amounts are the first of the larger."


def _transfer(tables, tuning: Tuning, points) -> Figure:
    figure, ax = drawing.axes()
    points = points[points["method"] == points["method"].iloc[0]]
    models = list(dict.fromkeys(points["model"]))
    colours, shapes, bounds = drawing.shades(models), drawing.marks(models), 0
    for model, mine in points.groupby("model", sort=False):
        look = {"color": colours[model], "ls": "none"}
        used, beyond = (mine[mine["state"] == state] for state in (USED, BEYOND))
        ax.plot(used["examples"], used["transferred"], shapes[model], mec="white", **look)
        least = beyond["most_examples"] - beyond["examples"]
        beyond, least = beyond[least > 0], least[least > 0]
        bounds += len(least)
        ax.plot(beyond["examples"], least, marker=r"$\uparrow$", ms=9, **look)
        ax.plot([], [], shapes[model], color=colours[model], mec="white", label=model)
    drawn = _law(ax, tables, tuning.name, points, colours)
    y = "Worth of pre-training (labelled examples)"
    drawing.finish(
        figure, ax, x=_EXAMPLES, y=y, legend="Model", x_ticks=points["examples"].unique()
    )
    caption = (
        "How many more labelled examples training from zero takes to reach the same test loss "
        f"({points['method'].iloc[0]}). Both axes logarithmic."
    )
    if bounds:
        caption += " Arrows: more than this, for no training from zero reached that loss."
    caption += " Lines are the fitted law." if drawn else " No law was fitted."
    title = f"{tuning.name}: what pre-training is worth"
    return Figure(tuning.figure("transfer"), tuning.section, title, caption, figure)


def _law(ax, tables, name: str, points, colours) -> bool:
    """The law's lines, where it converged."""
    rows = tables["transfer_laws"]
    rows = rows[(rows["finetune"] == name) & (rows["method"] == points["method"].iloc[0])]
    if not len(rows) or rows["status"].iloc[0] != "converged":
        return False
    law = rows.set_index("parameter")["value"]
    along = np.geomspace(points["examples"].min(), points["examples"].max(), 20)
    for model, size in points.groupby("model", sort=False)["params"].first().items():
        worth = law["k"] * along ** law["alpha"] * size ** law["beta"]
        ax.plot(along, worth, color=colours[model], lw=1)
    return True
