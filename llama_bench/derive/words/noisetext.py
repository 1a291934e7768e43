"""Which differences between sizes are more than chance: the screen and the paired tests, in words.

What a task cannot tell apart is said and marked, and nothing is left out for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_bench.derive.words import scores, show

_SMOOTH = ("gold_bits_per_byte", "gold_probability", "perplexity")


def words(tables) -> list[str]:
    """Sentences on all tasks of the study; none where nothing was compared."""
    return [*_screened(tables), *_paired(tables)]


def mark(columns: list[str]) -> str:
    """What the mark behind some of a table's columns means; "" where none is marked."""
    names = [
        name.removesuffix(scores.BLURRED).strip() for name in columns if scores.BLURRED in name
    ]
    if not names:
        return ""
    return f"{scores.BLURRED} cannot tell these sizes apart: {show.listed(names)}."


def _of_sizes(tables) -> list[dict[str, Any]]:
    """The screen's rows over sizes, of each task's main metric."""
    screen = tables["screen"]
    known = screen[(screen["over"] == "sizes") & screen["told_apart"].notna()]
    main = set(scores.main(tables)[scores.KEYS].itertuples(index=False, name=None))
    rows = known.to_dict("records")
    return [row for row in rows if tuple(row[key] for key in scores.KEYS) in main]


def _screened(tables) -> list[str]:
    rows = _of_sizes(tables)
    if not rows:
        return []
    called = _named(tables)
    told = [called(row) for row in rows if row["told_apart"]]
    not_told = [row for row in rows if not row["told_apart"]]
    text = (
        f"Signal against noise: {len(told)} of {show.plural(len(rows), 'task')} can tell the sizes "
        "apart at this scale" + (f" ({show.listed(told)})." if told else ".")
    )
    if not_told:
        listed = [f"{called(row)} ({_ratio(row)})" for row in not_told]
        text += (
            f" Marked {scores.BLURRED}, as noise alone would spread the scores of equal models as "
            f"far more often than once in twenty times: {show.listed(listed)}."
        )
    return [text]


def _named(tables) -> Callable[[dict[str, Any]], str]:
    """A row of the main metrics by its task's name."""
    called = scores.namer(scores.main(tables))
    return lambda row: called(row["suite"], row["task"], row["filter"])


def _ratio(row: dict[str, Any]) -> str:
    if show.absent(row["ratio"]):
        return "all score the same"
    return f"{show.digits(row['ratio'], 2)} where {show.digits(row['needed'], 2)} is needed"


def _paired(tables) -> list[str]:
    pairs = tables["pairs"]
    pairs = pairs[pairs["told_apart"].notna()]
    main = scores.main(tables)[[*scores.KEYS, "higher_is_better"]].drop_duplicates(scores.KEYS)
    first = pairs.merge(main, on=scores.KEYS)
    if not len(first):
        return []
    said, called = [], _named(tables)
    for origin, mine in first.groupby("origin", sort=False):
        widest = _widest(mine)
        beside = mine[mine["neighbours"].astype(bool)]
        model, against = widest["model"].iloc[0], widest["against"].iloc[0]
        whom = "" if first["origin"].nunique() == 1 else f" ({origin} models)"
        differ = f"{model} differs from {against}{whom}"
        text = (
            f"On the same items {differ} by more than chance on {len(_told(widest))} of "
            f"{show.plural(len(widest), 'task')}{_directions(_told(widest), called)}"
        )
        if len(beside) > len(widest):
            text += (
                f"; of neighbouring sizes, {len(_told(beside))} of {len(beside)} differences are"
            )
        said.append(f"{text}. Every other difference is within noise (paired tests, below).")
    smooth = [_smooth(pairs, metric) for metric in _SMOOTH]
    if any(smooth):
        listed = show.listed(filter(None, smooth))
        said.append(f"By what right or wrong rounds away they differ {listed}.")
    return said


def _directions(told, called) -> str:
    """The tasks by name, and on which of them the larger model is the worse one."""
    if not len(told):
        return ""
    rows = told.drop_duplicates(scores.KEYS).to_dict("records")
    names = [called(row) for row in rows]
    worse = [
        called(row)
        for row in rows
        if not show.absent(row["higher_is_better"])
        and (row["difference"] > 0) != bool(row["higher_is_better"])
    ]
    return f" ({show.listed(names)}{f'; worse on {show.listed(worse)}' if worse else ''})"


def _smooth(pairs, metric: str) -> str:
    widest = _widest(pairs[pairs["metric"] == metric])
    if not len(widest):
        return ""
    told, name = len(_told(widest)), scores.metric_name(metric)
    return f"in {name} on {told} of {show.plural(len(widest), 'task')}"


def _widest(pairs):
    """The smallest and the largest model; of two models, these are neighbours."""
    far = pairs[~pairs["neighbours"].astype(bool)]
    return far if len(far) else pairs


def _told(pairs):
    return pairs[pairs["told_apart"].astype(bool)]


def pair_tables(tables) -> list[dict[str, Any]]:
    """Per suite and origin, as shown text: {"title", "columns": pairs of models, "rows": one per
    task and metric, a cell being (difference, its interval, what of it)}."""
    found = []
    for (suite, origin), mine in tables["pairs"].groupby(["suite", "origin"], dropna=False):
        order = mine.drop_duplicates(["model", "against"])
        order = order.sort_values(
            ["neighbours", "parameters_without_embeddings"], ascending=[False, True], kind="stable"
        )
        columns = list(zip(order["against"], order["model"], strict=True))
        called = scores.namer(mine)
        rows = [
            {
                "task": called(suite, task, filter),
                "metric": scores.metric_name(metric),
                "cells": [_cell(part, *pair) for pair in columns],
            }
            for (task, metric, filter), part in mine.groupby(
                ["task", "metric", "filter"], dropna=False
            )
        ]
        title = f"{suite}, {origin} models"
        columns = [f"{against} → {model}" for against, model in columns]
        found.append({"title": title, "columns": columns, "rows": rows})
    return found


def _cell(pairs, against: str, model: str) -> tuple[str, str]:
    mine = pairs[(pairs["model"] == model) & (pairs["against"] == against)]
    if not len(mine):
        return show.NOTHING, ""
    row = mine.iloc[0]
    shown = show.plus_minus(row["difference"], scores.WIDTH * row["standard_error"])
    if show.absent(row["p_adjusted"]):
        return shown, "not tested"
    sure = "" if row["told_apart"] else "within noise, "
    p = "p < 0.001" if row["p_adjusted"] < 1e-3 else f"p {show.digits(row['p_adjusted'], 2)}"
    return shown, f"{sure}{p}"


def screen_rows(tables) -> list[dict[str, Any]]:
    """One row per task and metric that is tested in pairs, as shown text: its noise, and over
    sizes and budgets the signal and what of it."""
    tested = tables["pairs"][scores.KEYS].drop_duplicates()
    rows = tables["screen"].merge(tested, on=scores.KEYS)
    found, called = [], scores.namer(rows)
    for (suite, task, metric, filter), mine in rows.groupby(scores.KEYS, dropna=False):
        over = {row["over"]: row for row in mine.to_dict("records")}
        first = over.get("sizes") or over["budgets"]
        source = "" if show.absent(first["noise_source"]) else first["noise_source"]
        found.append(
            {
                "task": called(suite, task, filter),
                "metric": scores.metric_name(metric),
                "noise": (show.digits(first["noise"], 2), source),
                "cells": [_signal(over.get(name)) for name in ("sizes", "budgets")],
            }
        )
    return found


def _signal(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None or show.absent(row["told_apart"]):
        return (show.NOTHING, "") if row is None else (show.digits(row["signal"]), "")
    verdict = "" if row["told_apart"] else "within noise: "
    return show.digits(row["signal"]), f"{verdict}{_ratio(row)}"
