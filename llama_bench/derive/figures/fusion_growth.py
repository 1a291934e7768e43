"""What more members bring to a fusion, and the looks that its figures share."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.laws import merging
from llama_bench.derive.words import fusiongrowth
from llama_bench.derive.words.fusions import NAMES, Fused


def looks(group: list[Fused]) -> tuple[dict, dict]:
    """Colour and mark of each model, smallest first."""
    levels = list(dict.fromkeys(each.shown for each in group))
    return drawing.shades(levels), drawing.marks(levels)


def safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in name)


def draw(name: str, group: list[Fused]) -> Iterator[Figure]:
    methods = list(dict.fromkeys(method for each in group for method in each.growth))
    if not methods:
        return
    colours, shapes = looks(group)
    size = (drawing.SIZE[0] * max(1.0, len(methods) / 2.5), drawing.SIZE[1])
    figure, panels = plt.subplots(1, len(methods), figsize=size, squeeze=False)
    drawn = [
        _grown(ax, group, method, colours, shapes)
        for ax, method in zip(panels[0], methods, strict=True)
    ]
    for model in colours:
        look = {"color": colours[model], "marker": shapes[model], "mec": "white", "mew": 0.6}
        panels[0][-1].plot([], [], ls="none", **look, label=model)
    for ax, method in zip(panels[0], methods, strict=True):
        last = ax is panels[0][-1]
        scales = {"x_scale": "linear", "y_scale": "linear"}
        drawing.finish(figure, ax, x="", y="", legend="Model" if last else None, **scales)
        ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, min_n_ticks=1))
        ax.set_title(NAMES[method].replace(" ", "\n"))
    figure.supxlabel("Members", fontsize=10)
    means = fusiongrowth.drawn(group)
    one = "one member’s" if means else "the first member’s"
    panels[0][0].set_ylabel(f"Loss less {one} (nats per token)")
    curves, count = sum(drawn), sum(method in each.growth for each in group for method in methods)
    of = (
        "Mean loss of sets of 1, 2, ... members, evenly weighted, less the mean of members alone"
        if means
        else "Loss of the first 1, 2, ... members, evenly weighted, less that of the first alone; "
        "one order of the members"
    )
    caption = f"{of}. Panels have scales of their own. {_curves(curves, count)}"
    yield Figure(
        f"fusion-growth-{safe(name)}", "fusion", f"Fusing {name}: more members", caption, figure
    )


def _grown(ax, group: list[Fused], method: str, colours, shapes) -> int:
    """Points joined by the law where it was determined, else by thin straight lines; returns how
    many laws were drawn."""
    drawn = 0
    for each in group:
        if method not in each.growth:
            continue
        growth = each.growth[method].sort_values("members")
        members, losses = (growth[column].to_numpy(float) for column in ("members", "loss"))
        look = {"color": colours[each.shown], "marker": shapes[each.shown], "mec": "white"}
        law = each.laws.get(method)
        fitted = law is not None and len(law) and law["status"].iloc[0] == "converged"
        joined = {"ls": "none"} if fitted else {"ls": ":", "lw": 1}
        ax.plot(members, losses - losses[0], mew=0.6, **look, **joined)
        if fitted:
            along = np.linspace(members.min(), members.max(), 60)
            values = dict(zip(law["parameter"], law["value"], strict=True))
            ax.plot(along, merging.loss(along, **values) - losses[0], color=look["color"])
            drawn += 1
    ax.axhline(0, **drawing.REFERENCE)
    return drawn


def _curves(drawn: int, count: int) -> str:
    law = f"the law {merging.FORMULA}"
    if drawn == count:
        return f"Lines are {law}."
    if not drawn:
        return f"Dotted lines join points; {law} is not determined by them."
    return f"Lines are {law} where the points determine it; dotted ones join points."
