"""Which answers the models gave: one that never changes, and which class was taken for which.

A model that always gives one answer scores the share of items for which it is right, which a score
alone does not show.
"""

from __future__ import annotations

from typing import Any

from llama_bench.derive.words import scores, show

CONSTANT = 0.9  # share of one answer from which on it is called constant
KEYS = ["suite", "task", "model"]


def words(tables) -> list[str]:
    """A sentence that names the constant answers; none where there are none."""
    found = [text for rows in _each(tables["answers"]) if (text := _constant(rows))]
    if not found:
        return []
    listed = found if len(found) <= 6 else [*found[:6], f"{len(found) - 6} more (table answers)"]
    return [
        "Nearly one answer whatever was asked, so that the score is a share of items and no skill: "
        f"{show.listed(listed)}."
    ]


def _each(frame) -> list[Any]:
    """Per suite, task and model, at its largest budget, the rows of all its seeds."""
    longest = frame.groupby(KEYS, dropna=False)["budget"].transform("max")
    frame = frame[(frame["budget"] == longest) | longest.isna()]
    frame = frame.sort_values("parameters_without_embeddings", kind="stable")
    return [rows for _, rows in frame.groupby(KEYS, sort=False, dropna=False)]


def _constant(rows) -> str:
    items = rows["items"].sum()
    given = rows.groupby("given")["items"].sum() / items
    answer = given.idxmax()
    gold = rows.loc[rows["gold"] == answer, "items"].sum() / items
    if given[answer] < CONSTANT or gold >= CONSTANT:
        return ""
    named = rows.loc[rows["given"] == answer, "given_text"].iloc[0]
    called = f"choice {answer + 1:.0f}" if show.absent(named) else f"“{named.strip()}”"
    row = rows.iloc[0]
    return (
        f"{row['model']} in {scores.task_name(row['task'])} ({called} for "
        f"{show.percent(given[answer])}, right for {show.percent(gold)})"
    )


def confusions(tables) -> list[dict[str, Any]]:
    """Of tasks whose items have the same answers: per model the confusion matrix as shown text."""
    answers, classes = tables["answers"], tables["classes"]
    found: dict[str, dict[str, Any]] = {}
    for rows in _each(answers[answers["gold_text"].notna()]):
        about = rows.iloc[0]
        runs = set(rows["run"])
        mine = classes[classes["run"].isin(runs) & (classes["task"] == about["task"])]
        name = scores.task_name(about["task"])
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
