"""The evaluated trainings of the ladder in the form that a law of scores is fitted to.

One task of a hundred items is noisy; the mean over tasks is less so, which is why the laws of a
study are fitted to it. It is taken over the tasks of multiple choice that every evaluated training
has, with their accuracy, their task loss (bits per byte of the right answer) and their chance. A
perfect model has them all right, so the sigmoid's ceiling is 1; runs this far below it would not
determine it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import study_tables
from llama_bench.derive.tables.main_metric import TASK_LOSS

CEILING = 1.0
_ACCURACY = "acc"

Row = dict[str, Any]


def rows(ladder: list[Row], scores: list[Row], entries: list[Entry]) -> list[Row]:
    """Rows of `task_ladder`, from those of `ladder` and `scores`; none without common tasks."""
    training = {
        e.id: e.record.spec.get("train") for e in entries if e.verb == "evaluate" and e.record
    }
    tasks: dict[str, dict[tuple, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        run = training.get(score["run"])
        if run and score["state"] is score["before"] is None and score["value"] is not None:
            tasks[run][score["suite"], score["task"]][score["metric"]] = score
    asked = [row for row in ladder if row["run"] in tasks]
    usable = [{key for key, found in tasks[row["run"]].items() if _usable(found)} for row in asked]
    common = sorted(set.intersection(*usable), key=str) if usable else []
    made = []
    for row in asked if common else []:
        found = [tasks[row["run"]][key] for key in common]
        values = study_tables.picked("task_ladder", row) | {
            "task_loss": _mean(each[TASK_LOSS]["value"] for each in found),
            "accuracy": _mean(each[_ACCURACY]["value"] for each in found),
            "chance": _mean(each[_ACCURACY]["chance"] for each in found),
        }
        made.append(study_tables.row("task_ladder", **values, ceiling=CEILING, tasks=len(common)))
    return made


def _usable(found: dict[str, Row]) -> bool:
    return {_ACCURACY, TASK_LOSS} <= set(found) and found[_ACCURACY]["chance"] is not None


def _mean(values) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
