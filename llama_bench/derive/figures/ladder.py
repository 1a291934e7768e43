"""The ladder against its own shortcuts: other learning rates, and the mean of a trunk's weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import seaborn as sns

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.words import laddertext, ratetext, show
from llama_bench.derive.words.ratetext import Rates


def draw(tables, fits) -> Iterator[Figure]:
    """From all tables of the study, the runs beside its ladder included."""
    measured = [entry for entry in ratetext.rates(tables) if len(entry.losses) > 1]
    if measured:
        yield _rates(measured)
    runs = laddertext.averages(tables["trainings"])
    if len(runs):
        yield _averaging(runs)


def _rates(measured: list[Rates]) -> Figure:
    levels = [entry.model for entry in measured]
    colours, shapes = drawing.shades(levels), drawing.marks(levels)
    figure, ax = drawing.axes()
    ax.axvline(1.0, **drawing.REFERENCE)
    for entry in measured:
        colour, mark = colours[entry.model], shapes[entry.model]
        _size(ax, entry, {"color": colour, "mec": "white", "mew": 0.6}, mark)
    tried = {factor for entry in measured for factor in entry.losses}
    axes = {"x": "Peak learning rate (times the recipe’s)", "y": "Loss above its lowest (%)"}
    drawing.finish(figure, ax, **axes, legend="Model", y_scale="linear", x_ticks=tried)
    budgets = sorted({entry.tokens for entry in measured})
    on = show.short(budgets[0])
    on += f" to {show.short(budgets[-1])}" if len(budgets) > 1 else ""
    caption = (
        f"Held-out loss above the lowest of the same size, one seed on {on} training tokens; stars "
        "mark the lowest points of parabolas through three neighbours, the dashed line is the "
        f"recipe’s rate. {_sure(measured)}"
    )
    lost = sum(len(entry.diverged) for entry in measured)
    if lost:
        caption += f" Not drawn: {show.plural(lost, 'run')} that diverged."
    return Figure("rates", "loss", "Loss against the learning rate", caption, figure)


def _size(ax, entry: Rates, look, mark: str) -> None:
    """Losses over the lowest one, and the parabola that tells the optimum, where there is one."""

    def above(losses):
        return 100 * (np.asarray(losses) / entry.losses[entry.best] - 1)

    factors, losses = list(entry.losses), list(entry.losses.values())
    curved = entry.optimum is not None
    ax.plot(factors, above(losses), ls="none" if curved else "-", marker=mark, **look)
    ax.plot([], [], color=look["color"], marker=mark, mec="white", mew=0.6, label=entry.model)
    if not curved:
        return
    along = np.geomspace(entry.nearest[0], entry.nearest[-1], 40)
    ax.plot(along, above(entry.parabola(along)), color=look["color"])
    star = above(entry.parabola([entry.optimum]))
    ax.plot([entry.optimum], star, "*", ms=11, zorder=3, **look)


def _sure(measured: list[Rates]) -> str:
    noise = max(entry.noise / entry.losses[entry.best] for entry in measured)
    if not noise:
        return "How far two losses differ by chance was not measured."
    return f"Two losses of one size may differ by {show.percent(noise)} by chance."


def _averaging(runs) -> Figure:
    figure, ax = drawing.axes()
    kinds = {"trunk_loss": ("the trunk itself", "s"), "averaged_loss": ("mean of its weights", "o")}
    colours = sns.color_palette("colorblind", len(kinds))
    for (column, (name, marker)), colour in zip(kinds.items(), colours, strict=True):
        look = {"color": colour, "mec": "white", "mew": 0.6, "label": name}
        ax.plot(runs["loss"], runs[column], marker, **look)
    ends = runs[["loss", *kinds]].to_numpy()
    line = [ends.min(), max(runs["loss"].max(), ends.min())]
    ax.plot(line, line, **drawing.REFERENCE)
    x, y = "Held-out loss after annealing (nats per token)", "Held-out loss before it"
    drawing.finish(figure, ax, x=x, y=y, legend="Before", x_scale="linear", y_scale="linear")
    caption = (
        f"{show.plural(len(runs), 'run')}, each at the point where its branch leaves the trunk, on "
        "the same held-out text as its end; on the dashed line annealing gains nothing. "
    )
    error = runs["loss_standard_error"].median()
    if not show.absent(error):
        caption += (
            f"The standard error of a loss is {show.digits(error, 2)}; of a difference it is less, "
            "for both are of the same windows."
        )
    title = "The mean of a trunk’s weights against annealing"
    return Figure("averaging", "loss", title, caption.strip(), figure)
