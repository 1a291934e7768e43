"""The fitted law against the runs. A fit that did not converge is told of and never drawn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.words import lawtext, show

BAND = 0.95


def draw(tables, fits) -> Iterator[Figure]:
    """For every law of the loss that converged: what was measured against what it says."""
    for fit in fits:
        if lawtext.drawable(fit):
            yield _agreement(fit, tables["ladder"])


def _agreement(fit, ladder) -> Figure:
    points = pd.DataFrame(fit["points_used"])
    points["model"] = _models(points, ladder)
    if "params" in points:
        points = points.sort_values("params", kind="stable")
    levels = list(dict.fromkeys(points["model"]))
    colours, shapes = drawing.shades(levels), drawing.marks(levels)
    figure, ax = drawing.axes()
    losses = points[["loss", "fitted"]].to_numpy()
    ax.plot([losses.min(), losses.max()], [losses.min(), losses.max()], **drawing.REFERENCE)
    for level in levels:
        mine, look = points[points["model"] == level], {"mec": "white", "mew": 0.6, "label": level}
        ax.plot(mine["fitted"], mine["loss"], shapes[level], color=colours[level], **look)
    axes = {"x": "Loss by the law (nats per token)", "y": "Loss measured (nats per token)"}
    drawing.finish(figure, ax, **axes, legend="Model", x_scale="linear", y_scale="linear")
    off = np.abs(points["loss"] / points["fitted"] - 1)
    caption = (
        f"On the dashed line both agree. {show.plural(len(points), 'run')}; the median distance is "
        f"{show.percent(off.median())} of the loss, the largest {show.percent(off.max())}. These "
        "are the runs of the fit itself, so this says how well the form fits, not how well it "
        "forecasts."
    )
    title = f"The law {fit['law']} against the runs it was fitted to"
    return Figure(f"law-{fit['law']}", "law", title, caption, figure)


def _models(points, ladder) -> list[str]:
    """The study's names for the points' models; a size in figures where the ladder has none."""
    if "params" not in points:
        return ["run"] * len(points)
    names = dict(zip(ladder["params"], ladder["model"], strict=True))
    return [names.get(size, show.short(size)) for size in points["params"]]


def isolines(ax, ladder, fits, colours) -> str:
    """Draw what the first law that converged says for each size; the sentence for the caption."""
    told = [fit for fit in fits if fit["status"] != "converged" and not lawtext.of_scores(fit)]
    note = " ".join(
        f"No curve of {fit['law']} is drawn: its fit ended {fit['status']}." for fit in told
    )
    fit = next((fit for fit in fits if lawtext.drawable(fit)), None)
    if fit is None:
        return note
    from llama_bench.derive.predict import predict_table

    for model, runs in ladder.groupby("model", sort=False):
        points = _along(runs)
        said = predict_table(fit, points, levels=(BAND,))
        ax.plot(points["flops"], said["point"], color=colours[model], lw=1, zorder=2)
        low, high = said[f"low_{100 * BAND:.3g}"], said[f"high_{100 * BAND:.3g}"]
        if np.isfinite(low).all() and np.isfinite(high).all():
            ax.fill_between(points["flops"], low, high, color=colours[model], alpha=0.15, lw=0)
    lines = (
        f"Lines are the law {fit['law']} for each size over the tokens it saw, bands its "
        f"{BAND:.0%} intervals for a single run."
    )
    return f"{lines} {note}".strip()


def _along(runs) -> pd.DataFrame:
    """Points of one size from its least to its most tokens; its FLOPs are tokens x a constant."""
    tokens = np.geomspace(runs["tokens"].min(), runs["tokens"].max(), 40)
    return pd.DataFrame(
        {
            "params": runs["params"].iloc[0],
            "tokens": tokens,
            "flops": tokens * (runs["flops"] / runs["tokens"]).iloc[0],
            "unique_tokens": np.minimum(tokens, runs["unique_tokens"].max()),
        }
    )
