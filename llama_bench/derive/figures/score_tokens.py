"""Every task's score against training tokens, a line for each size.

A training that was evaluated before its end too (the trunk as it was when the branch left it, or
its averaged weights) has those points where the trunk stood then.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.tables import main_metric, study_tables
from llama_bench.derive.words import scores, show

STATES = {"trunk": ("none", ":", "trunk"), "averaged": ("white", "--", "averaged\ntrunk")}


def draw(tables, fits) -> Iterator[Figure]:
    """`tables` with all states; what was trained on the study's own text is drawn."""
    told = _placed(tables).sort_values("parameters_without_embeddings", kind="stable")
    own, several = scores.own_metrics(tables), told["suite"].nunique() > 1
    called = scores.namer(told)
    for (suite, task, filter), rows in told.groupby(["suite", "task", "filter"], dropna=False):
        metric = main_metric.of(rows["metric"], own.get(task))
        mine = rows[rows["metric"] == metric]
        if mine.groupby("model")["tokens"].nunique().max() > 1:
            name = scores.title(called(suite, task, filter), metric)
            yield _figure(mine, suite if several else None, task, metric, filter, name)


def _placed(tables):
    """Scores of trained models with `tokens`: where on its training each stands."""
    told = scores.told(tables)
    told = told[study_tables.as_trained(told) & told["data"].isna() & told["budget"].notna()]
    trainings = tables["trainings"]
    trainings = trainings[trainings["data"].isna() & (trainings["role"] == "ladder")]
    share = trainings.drop_duplicates("model").set_index("model")["decay_share"]
    left = 1 - told["model"].map(share).astype(float).fillna(0.0)
    return told.assign(tokens=told["budget"] * np.where(told["state"].isna(), 1.0, left))


def _figure(rows, suite, task: str, metric: str, filter, title: str) -> Figure:
    figure, ax = drawing.axes()
    models = list(dict.fromkeys(rows["model"]))
    colours, shapes = drawing.shades(models), drawing.marks(models)
    for place, model in enumerate(models):
        mine = rows[rows["model"] == model]
        nudge = 1.02 ** (place - (len(models) - 1) / 2)
        _line(ax, mine[mine["state"].isna()], nudge, colours[model], shapes[model], model)
        for state, (face, line, _) in STATES.items():
            part = mine[mine["state"] == state]
            _line(ax, part, nudge, colours[model], shapes[model], None, line, face)
    for state, (face, line, name) in STATES.items():
        if (rows["state"] == state).any():
            ax.plot([], [], color=drawing.SOFT, ls=line, marker="o", mfc=face, label=name)
    chance = rows["chance"].dropna()
    low, high = ax.get_ylim()
    if len(chance) and 2 * low - high < chance.iloc[0] < 2 * high - low:
        ax.axhline(chance.iloc[0], **drawing.REFERENCE, label="chance")
    better = "higher" if bool(rows["higher_is_better"].iloc[0]) else "lower"
    label = f"{scores.axis_name(metric)} ({better} is better)"
    budgets = set(rows.loc[rows["state"].isna(), "tokens"])
    look = {"y_scale": "linear", "legend": "Model", "x_ticks": budgets}
    drawing.finish(figure, ax, x="Training tokens", y=label, **look)
    drawing.bounded(ax, *scores.bounds(metric, rows["value"]))
    parts = [suite, task, metric, None if filter in ("none", None) else filter]
    name = "-".join(str(part) for part in parts if part)
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    title = f"{title} against tokens"
    return Figure(f"tokens-{safe}", "task-details", title, _caption(rows), figure)


def _line(ax, rows, nudge, colour, marker, label, line="-", face=None) -> None:
    """Means over seeds with 95 % bars over items."""
    if not len(rows):
        return
    means = rows.groupby("tokens").agg(
        metric=("metric", "first"),
        value=("value", "mean"),
        error=("standard_error", "mean"),
        items=("items", "mean"),
    )
    bars = scores.bars(means)
    look = {"color": colour, "marker": marker, "ls": line, "label": label, "elinewidth": 1}
    look |= {"mfc": colour if face is None else face, "mec": "white" if face is None else colour}
    ax.errorbar(
        means.index.to_numpy(float) * nudge,
        means["value"],
        yerr=bars if bars.any() else None,
        mew=0.6,
        **look,
    )


def _caption(rows) -> str:
    text = "Each point is a training of that many tokens."
    if rows["standard_error"].notna().any():
        text += " Bars are 95 % intervals over items (Wilson's, of shares)."
    if (rows.groupby(["model", "tokens", "state"], dropna=False).size() > 1).any():
        text += " Lines go through the mean over seeds."
    if rows["state"].notna().any():
        known = [name for name in STATES if (rows["state"] == name).any()]
        text += (
            f" Hollow: the same training before its rate decayed ({show.listed(known)}), where the "
            "trunk stood then."
        )
    return text
