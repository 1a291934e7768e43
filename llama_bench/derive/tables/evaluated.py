"""Rows of one evaluation: scores, how answers fell, and the texts that the model wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import failures, study_tables
from llama_bench.derive.tables.study_tables import Row


def rows(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    about = entry.about("budget", "seed", "data", "state", "before", "fuse") | entry.tuning
    suite = {"suite": entry.labels.get("suite")}
    for table in ("scores", "constructions", "answers"):
        for found in result.get(table, []):
            values = study_tables.picked(table, found) | about | suite
            yield table, study_tables.row(table, **values)
    for values in classes(result.get("answers", [])):
        yield "classes", study_tables.row("classes", **values, **about, **suite)
    for failed in result.get("failed", []):
        status = failed.get("status", "failed")
        yield failures.row(entry, failed["task"], status, failed.get("reason"))
    for sample in result.get("samples", []):
        # a sample's own seed is that of its drawing; `seed` is the training's
        values = study_tables.picked("samples", sample) | about
        yield "samples", study_tables.row("samples", sample_seed=sample.get("seed"), **values)


def classes(answers: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """From a confusion matrix in long form (docs/protocol.md's `answers`) to precision and recall
    of each answer, where they are defined, of the tasks whose items all have the same answers
    (van Rijsbergen 1979, Information Retrieval, chapter 7)."""
    for task in dict.fromkeys(row["task"] for row in answers):
        mine = [row for row in answers if row["task"] == task and row.get("gold_text") is not None]
        names = {row["gold"]: row["gold_text"] for row in mine}
        names |= {row["given"]: row["given_text"] for row in mine}
        for place in sorted(names):
            gold = _items(row for row in mine if row["gold"] == place)
            given = _items(row for row in mine if row["given"] == place)
            right = _items(row for row in mine if row["gold"] == row["given"] == place)
            yield {
                "task": task,
                "answer": names[place],
                "items": gold,
                "given": given,
                "right": right,
                "precision": right / given if given else None,
                "recall": right / gold if gold else None,
                "f1": 2 * right / (gold + given) if gold + given else None,
            }


def _items(rows: Iterable[dict[str, Any]]) -> int:
    return sum(row["items"] for row in rows)
