"""Loss against what it costs: parameters, tokens, floating-point operations, time in training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import seaborn as sns

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.figures.law import isolines
from llama_bench.derive.words import show

SMOOTHED = 0.05  # share of a run over which its noisy training loss is averaged
LOSS = "Held-out loss (nats per token)"


def draw(tables, fits) -> Iterator[Figure]:
    ladder = tables["ladder"]
    if len(ladder):
        by_compute = ladder["budget"].notna().any()
        yield from _isoflop(ladder, fits) if by_compute else _against_parameters(ladder)
        yield from _against_tokens(ladder)
        yield _against_flops(ladder, fits)
    yield from _curves(tables)


def by_size(frame, column: str) -> list[str]:
    """The models of `frame`, smallest first."""
    return list(frame.sort_values([column, "model"], kind="stable")["model"].unique())


def budgets(ladder) -> list[float]:
    return sorted(ladder["token_budget"].dropna().unique())


def seeds(frame, within: list[str]) -> str:
    """How the caption speaks of seeds, where there are several."""
    count = int(frame.groupby(within).size().max())
    if count < 2:
        return ""
    return f" Points are means over up to {count} seeds, bars reach from the lowest to the highest."


def _against_parameters(ladder) -> Iterator[Figure]:
    if ladder["params"].nunique() < 2:
        return
    levels = [show.short(budget) for budget in budgets(ladder)]
    frame = ladder.assign(level=ladder["token_budget"].map(show.short))
    figure, ax = drawing.axes()
    lines(ax, frame, "params", levels, drawing.shades(levels, of="budget"))
    drawing.finish(figure, ax, x=drawing.PARAMETERS, y=LOSS, legend="Training\ntokens")
    yield Figure(
        "loss-parameters",
        "loss",
        "Loss against size",
        f"Mean loss on held-out text; one line per training budget ({show.listed(levels)} tokens); "
        "both axes logarithmic." + seeds(ladder, ["model", "token_budget"]),
        figure,
    )


def _isoflop(ladder, fits) -> Iterator[Figure]:
    """Where budgets are of compute, hardly two runs share one of tokens: lines join equal FLOPs."""
    ladder = ladder.dropna(subset=["budget"])
    if ladder["params"].nunique() < 2:
        return
    levels = [show.power(budget) for budget in sorted(ladder["budget"].unique())]
    frame = ladder.assign(level=ladder["budget"].map(show.power))
    minima = [m for fit in fits if fit["law"] == "isoflop" for m in fit.get("minima") or []]
    found = [entry for entry in minima if entry["params"] is not None]
    figure, ax = drawing.axes()
    lines(ax, frame, "params", levels, drawing.shades(levels, of="budget"))
    places = [[entry[name] for entry in found] for name in ("params", "loss")]
    if found:
        look = {"ms": 11, "mec": "white", "mew": 0.8, "zorder": 4, "label": "minimum"}
        ax.plot(*places, "*", color=drawing.INK, **look)
    drawing.finish(figure, ax, x=drawing.PARAMETERS, y=LOSS, legend="Training\nFLOPs")
    caption = (
        f"Mean loss on held-out text; each line joins runs of about equal compute "
        f"({show.listed(levels)} FLOPs), so more parameters are fewer tokens; both axes "
        f"logarithmic.{seeds(ladder, ['model', 'budget'])}{_minima(minima)}"
    )
    yield Figure("isoflop", "loss", "Loss against size at equal compute", caption, figure)


def _minima(minima) -> str:
    """How the caption speaks of the minima, and of the budgets that have none."""
    told = ""
    if any(entry["params"] is not None for entry in minima):
        told = " Stars are the minima that the law isoflop interpolates."
    for entry in minima:
        if entry["params"] is None:
            told += f" No minimum at {show.digits(entry['budget'])} FLOPs: {entry['why']}."
    return told


def _against_tokens(ladder) -> Iterator[Figure]:
    if ladder["tokens"].nunique() < 2:
        return
    levels = by_size(ladder, "params")
    figure, ax = drawing.axes()
    lines(ax, ladder.assign(level=ladder["model"]), "tokens", levels, drawing.shades(levels))
    drawing.finish(
        figure, ax, x="Training tokens", y=LOSS, legend="Model", x_ticks=_apart(ladder["tokens"])
    )
    yield Figure(
        "loss-tokens",
        "loss",
        "Loss against training tokens",
        "The same runs, one line per size; both axes logarithmic."
        + seeds(ladder, ["model", "token_budget"]),
        figure,
    )


def _apart(values) -> list[float]:
    """The levels themselves, where no two are so close that their labels would touch."""
    levels = sorted(values.unique())
    close = any(b < 1.25 * a for a, b in itertools.pairwise(levels))
    return [] if close else levels


def lines(ax, frame, x: str, levels: list[str], colours) -> None:
    sns.lineplot(
        frame,
        x=x,
        y="loss",
        ax=ax,
        hue="level",
        hue_order=levels,
        palette=colours,
        style="level",
        style_order=levels,
        markers=drawing.marks(levels),
        dashes=False,
        errorbar=("pi", 100),
        err_style="bars",
        markeredgecolor="white",
        markeredgewidth=0.6,
    )


def _against_flops(ladder, fits) -> Figure:
    levels = by_size(ladder, "params")
    colours = drawing.shades(levels)
    figure, ax = drawing.axes()
    note = isolines(ax, ladder, fits, colours)
    if not ax.lines:
        for model, runs in ladder.groupby("model", sort=False):
            means = runs.groupby("flops")["loss"].mean()
            ax.plot(means.index, means, color=colours[model], lw=0.8, zorder=2)
        note = f"Thin lines join the runs of one size. {note}"
    sns.scatterplot(
        ladder,
        x="flops",
        y="loss",
        ax=ax,
        hue="model",
        hue_order=levels,
        palette=colours,
        style="model",
        style_order=levels,
        markers=drawing.marks(levels),
        s=36,
        edgecolor="white",
        linewidth=0.6,
        zorder=3,
    )
    drawing.finish(figure, ax, x="Training FLOPs", y=LOSS, legend="Model")
    return Figure(
        "loss-flops",
        "loss",
        "Loss against training compute",
        f"All {show.plural(len(ladder), 'run')}; FLOPs counted exactly, with the output head and "
        f"causal attention. {note}".strip(),
        figure,
    )


def _curves(tables) -> Iterator[Figure]:
    """The training loss of each size's longest run, and the held-out loss of every run's end."""
    curves = tables["curves"].dropna(subset=["tokens", "train_loss"])
    if not len(curves):
        return
    levels = by_size(curves, "parameters_without_embeddings")
    colours, shapes = drawing.shades(levels), drawing.marks(levels)
    ended = dict(zip(tables["trainings"]["run"], tables["trainings"]["status"], strict=True))
    figure, ax = drawing.axes()
    settled = []
    for model in levels:
        look = {"color": colours[model], "marker": shapes[model], "mec": "white", "mew": 0.6}
        settled.append(_curve(ax, curves[curves["model"] == model], model, ended, look))
    ax.set_ylim(top=max(settled))  # the first steps, from a uniform guess down, would fill the axis
    axes = {"x": "Tokens seen", "y": "Loss (nats per token)"}
    drawing.finish(figure, ax, **axes, legend="Model", x_scale="linear")
    caption = (
        "Lines: training loss of the longest run of each size, mean over the last "
        f"{show.percent(SMOOTHED)} of its points. Marks: held-out loss at the end of every run, "
        "after its decay of the learning rate."
    )
    yield Figure("training-curves", "loss", "Loss while training", caption, figure)


def _curve(ax, runs, model: str, ended: dict[str, str], look) -> float:
    """One size; returns the highest of its smoothed losses once the first steps are behind it."""
    order = ["budget", "seed", "tokens"]
    runs = runs.sort_values(order, ascending=[False, True, True], kind="stable")
    longest = runs[runs["run"] == runs["run"].iloc[0]]
    window = max(1, round(SMOOTHED * len(longest)))
    smooth = longest["train_loss"].rolling(window, min_periods=1).mean()
    ends = runs.dropna(subset=["validation_loss"]).groupby("run").last()
    status = ended.get(longest["run"].iloc[0], "ok")
    ax.plot(longest["tokens"], smooth, color=look["color"], lw=1.2)
    ax.plot(ends["tokens"], ends["validation_loss"], ls="none", **look)
    ax.plot([], [], **look, label=model if status == "ok" else f"{model} ({status})")
    return smooth[longest["tokens"] > SMOOTHED * longest["tokens"].max()].max()
