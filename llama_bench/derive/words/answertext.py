"""How the questions were asked and answered: which were cut, one answer that never changes, and
which class was taken for which.

A model that always gives one answer scores the share of items for which it is right, which a score
alone does not show; nor does it show that a question lost its beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_bench.derive.words import scores, show

CONSTANT = 0.9  # share of one answer from which on it is called constant
KEYS = ["suite", "task", "model"]
MOST = 6  # tasks or models that are named
# columns of the table scores, and what became of the requests that they count
_ALTERED = {
    "unscored": "not scored at all, and so wrong (an answer that encodes to nothing, or is longer "
    "than the window)",
    "truncated": "without their beginning, which the model's window had no room for",
    "respelled": "parted from their answers by characters, as the tokenizer joins the two",
    "lossy": "in the tokenizer's version of a text that it does not give back as it was",
}


def words(tables) -> list[str]:
    """A sentence that names the constant answers; none where there are none."""
    models: dict[str, list[str]] = {}
    called = scores.namer(tables["answers"])
    for rows in _each(tables["answers"]):
        if text := _constant(rows, called):
            models.setdefault(text, []).append(rows["model"].iloc[0])
    if not models:
        return []
    found = [f"{show.listed(dict.fromkeys(names))} in {text}" for text, names in models.items()]
    return [
        "Nearly one answer whatever was asked, so that the score is a share of items and no skill: "
        f"{_shortened(found, 'answers')}."
    ]


def altered(tables) -> list[str]:
    """A sentence that counts what was not asked or scored as it stands; none where all was."""
    scores_of = tables["scores"]
    several = scores_of["suite"].nunique() > 1
    said = []
    for column, what in _ALTERED.items():
        counted = scores_of[scores_of[column].fillna(0) > 0].drop_duplicates(["run", "task"])
        found = [
            f"{scores.task_name(task)}{f' of {suite}' if several else ''} ({_counts(rows[column])})"
            for (suite, task), rows in counted.groupby(["suite", "task"], sort=False, dropna=False)
        ]
        said += [f"{what}: {_shortened(found, 'scores')}"] if found else []
    if not said:
        return []
    first, *rest = said
    listed = "; ".join([f"{first[0].upper()}{first[1:]}", *rest])
    return [
        f"Not every request (a question with one of its answers) was scored as it stands. {listed}."
    ]


def _counts(counts) -> str:
    low, high = int(counts.min()), int(counts.max())
    many = f"{low} to {high}" if low < high else str(low)
    return f"{show.plural(len(counts), 'evaluation')}, {many} of each"


def _shortened(found: list[str], table: str) -> str:
    more = [f"{len(found) - MOST} more (table {table})"] if len(found) > MOST else []
    return show.listed([*found[:MOST], *more])


def _each(frame) -> list[Any]:
    """Per suite, task and model, at its largest budget, the rows of all its seeds."""
    longest = frame.groupby(KEYS, dropna=False)["budget"].transform("max")
    frame = frame[(frame["budget"] == longest) | longest.isna()]
    frame = frame.sort_values("parameters_without_embeddings", kind="stable")
    return [rows for _, rows in frame.groupby(KEYS, sort=False, dropna=False)]


def _constant(rows, called: Callable[..., str]) -> str:
    items = rows["items"].sum()
    given = rows.groupby("given")["items"].sum() / items
    answer = given.idxmax()
    gold = rows.loc[rows["gold"] == answer, "items"].sum() / items
    if given[answer] < CONSTANT or gold >= CONSTANT:
        return ""
    text = rows.loc[rows["given"] == answer, "given_text"].iloc[0]
    choice = f"choice {answer + 1:.0f}" if show.absent(text) else f"“{text.strip()}”"
    return (
        f"{called(*rows[['suite', 'task']].iloc[0])} ({choice} for {show.percent(given[answer])}, "
        f"right for {show.percent(gold)})"
    )


def confusions(tables) -> list[dict[str, Any]]:
    """Of tasks whose items have the same answers: per model the confusion matrix as shown text."""
    answers, classes = tables["answers"], tables["classes"]
    found: dict[str, dict[str, Any]] = {}
    called = scores.namer(answers)
    for rows in _each(answers[answers["gold_text"].notna()]):
        about = rows.iloc[0]
        runs = set(rows["run"])
        mine = classes[classes["run"].isin(runs) & (classes["task"] == about["task"])]
        name = called(about["suite"], about["task"])
        found.setdefault(name, {"task": name, "models": []})["models"].append(_matrix(rows, mine))
    return list(found.values())


def _matrix(rows, classes) -> dict[str, Any]:
    about = rows.iloc[0]
    names = list(dict.fromkeys(classes["answer"]))
    counts = rows.groupby(["gold_text", "given_text"])["items"].sum()
    sums = classes.groupby("answer", sort=False)[["items", "given", "right"]].sum()
    table = []
    for gold in names:
        cells = [
            {"count": show.exact(counts.get((gold, given), 0)), "right": gold == given}
            for given in names
        ]
        recall = (
            sums.loc[gold, "right"] / sums.loc[gold, "items"] if sums.loc[gold, "items"] else None
        )
        table.append({"name": gold.strip(), "cells": cells, "recall": show.percent(recall)})
    precision = [
        show.percent(row["right"] / row["given"] if row["given"] else None)
        for _, row in sums.iterrows()
    ]
    return {
        "model": about["model"],
        "about": f"{show.short(about['parameters_without_embeddings'])} parameters",
        "names": [name.strip() for name in names],
        "rows": table,
        "precision": precision,
    }
