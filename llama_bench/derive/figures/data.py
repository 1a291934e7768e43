"""Training texts: less text read more often, and other texts, each at equal training tokens."""

from __future__ import annotations

from collections.abc import Iterator

import seaborn as sns

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.figures.loss import LOSS, by_size, lines, seeds
from llama_bench.derive.words import data_table, datatext, show
from llama_bench.derive.words.datatext import Gain, Text
from llama_bench.derive.words.scores import WIDTH

ROOM = 0.6  # of a text's row for all its points


def draw(tables, fits) -> Iterator[Figure]:
    """From all tables of the study: its own ladder is one text among others here."""
    runs = datatext.repetition(tables)
    if len(runs):
        yield _unique_tokens(runs)
    compared = [(text, gained) for text, gained in datatext.compared(tables) if gained]
    if compared:
        yield _gains(compared, data_table.error_words(tables))


def _unique_tokens(runs) -> Figure:
    levels = by_size(runs, "params")
    figure, ax = drawing.axes()
    lines(ax, runs.assign(level=runs["model"]), "unique_tokens", levels, drawing.shades(levels))
    lengths = list(runs["unique_tokens"].unique())
    drawing.finish(figure, ax, x="Unique training tokens", y=LOSS, legend="Model", x_ticks=lengths)
    tokens = sorted(runs["tokens"].unique())
    asked = show.short(tokens[0])
    asked += f" to {show.short(tokens[-1])}" if show.short(tokens[-1]) != asked else ""
    caption = (
        f"The study’s own text, or its beginning read over and over, until {asked} tokens were "
        f"trained on: the leftmost runs read theirs {data_table.epochs(runs)} times. Both axes "
        f"logarithmic.{seeds(runs, ['model', 'unique_tokens'])}"
    )
    return Figure("unique-tokens", "data", "Loss against unique tokens", caption, figure)


def _gains(compared: list[tuple[Text, list[Gain]]], error_words: str) -> Figure:
    everything = [gain for _, gained in compared for gain in gained]
    params = {gain.model: gain.params for gain in everything}
    models = sorted(params, key=lambda model: (params[model], model))
    budgets = sorted({gain.budget for gain in everything})
    colours, shapes = drawing.shades(models), drawing.marks(budgets)
    figure, ax = drawing.axes()
    ax.axvline(0, **drawing.REFERENCE)
    for row, (_, gained) in enumerate(compared):
        step = ROOM / max(len(gained) - 1, 1)
        for place, gain in enumerate(gained):
            _point(ax, gain, row + place * step - ROOM / 2, colours, shapes)
    for model in models:
        ax.plot([], [], "o", color=colours[model], label=model)
    for budget in budgets if len(budgets) > 1 else []:
        look = {"mfc": "none", "mec": drawing.INK, "label": f"{show.short(budget)} tokens"}
        ax.plot([], [], shapes[budget], **look)
    look = {"legend": "Model", "x_scale": "linear", "y_scale": "linear"}
    drawing.finish(figure, ax, x="Loss less that with the own text (nats/token)", y="", **look)
    ax.set_yticks(range(len(compared)), [text.shown for text, _ in compared])
    ax.set_ylim(len(compared) - 0.5, -0.5)
    ax.grid(False, axis="y")
    sns.despine(ax=ax, left=True)
    bars = "no error is known" if everything[0].error is None else f"bars are {error_words}"
    caption = (
        "Loss with each text less that with the study’s own, nats per token on the same held-out "
        "text, one point per size and budget; left of the dashed line the other text is better. "
        f"{bars[0].upper()}{bars[1:]}."
    )
    return Figure("text-gain", "data", "Other texts at equal training tokens", caption, figure)


def _point(ax, gain: Gain, y: float, colours, shapes) -> None:
    reach = 0.0 if gain.error is None else WIDTH * gain.error
    ax.errorbar(
        gain.difference,
        y,
        xerr=reach or None,
        fmt=shapes[gain.budget],
        color=colours[gain.model],
        elinewidth=1,
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
    )
