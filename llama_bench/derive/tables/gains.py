"""What fine-tuning gave: each fine-tuned model's scores less those of two others on the same items.

`before` is the base that it began with, on the same task; `from zero` the same shape with random
weights, fine-tuned on the same examples. Where a score follows from sums over items (of right
answers, of matched n-grams) the two are compared on the same items (judging/paired_sums.py). Any
other (F1 over classes) has the standard error of two independent scores, which is too wide, because
both are of the same items; it is not tested.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.judging import paired, paired_sums
from llama_bench.derive.tables import pairs, study_tables
from llama_bench.derive.tables.study_tables import Row

BEFORE, FROM_ZERO = "before", "from zero"
_MODEL = ("model", "budget", "seed", "data")
_TUNED = ("finetune", "fraction", "tuning_seed")


def rows(entries: list[Entry]) -> Iterator[Row]:
    """Rows of `gains` from the evaluations among `entries`, of which every metric of a fine-tuning
    is one family of comparisons."""
    families: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for values in _all(entries):
        names = ("finetune", "method", "against", "suite", "task", "metric", "filter")
        families[tuple(values[name] for name in names)].append(values)
    for family in families.values():
        adjusted = paired.holm([values["p"] for values in family])
        for values, p in zip(family, adjusted, strict=True):
            values |= {"p_adjusted": p, "told_apart": None if p is None else p < paired.LEVEL}
            yield "gains", study_tables.row("gains", **values)


def _all(entries: list[Entry]) -> Iterator[dict[str, Any]]:
    asked = [e for e in entries if e.verb == "evaluate" and e.status == "ok"]
    asked = [e for e in asked if not e.labels.get("state") and not e.labels.get("fuse")]
    tuned = [e for e in asked if e.labels.get("finetune")]
    before = {_place(e, _MODEL): e for e in asked if not e.labels.get("finetune")}
    zero = {_place(e, ("model", *_TUNED)): e for e in tuned if e.labels.get("from_zero")}
    of_items = read_once()
    for entry in tuned:
        if entry.labels.get("from_zero"):
            continue
        others = {
            BEFORE: before.get(_place(entry, _MODEL)),
            FROM_ZERO: zero.get(_place(entry, ("model", *_TUNED))),
        }
        for against, other in others.items():
            for values in _compared(entry, other, of_items) if other else ():
                yield values | {"against": against}


def _place(entry: Entry, names: tuple[str, ...]) -> tuple:
    """What two evaluations must share to be compared; a suite is of the same tasks."""
    return tuple(entry.labels.get(name) for name in (*names, "suite"))


def read_once() -> Callable[[Entry], pairs.Values]:
    """The items of an evaluation, which are read from disk the first time they are asked for."""
    items: dict[str, pairs.Values] = {}

    def of_items(entry: Entry) -> pairs.Values:
        if entry.id not in items:
            items[entry.id] = pairs.statistics(entry)
        return items[entry.id]

    return of_items


def _compared(entry: Entry, other: Entry, of_items) -> Iterator[dict[str, Any]]:
    about = study_tables.picked("gains", entry.about("budget", "seed", "data", "suite"))
    about |= entry.tuning | {"against_run": other.id}
    for mine, its, difference in compared(entry, other, of_items):
        values = study_tables.picked("gains", mine, but=("items", "standard_error"))
        yield values | {"against_value": its["value"], **about} | difference


def compared(entry: Entry, other: Entry, of_items) -> Iterator[tuple[dict, dict, dict]]:
    """(the one's score, the other's, their difference), of every task metric that both have."""
    mine, its = _scores(entry), _scores(other)
    for key in mine:
        if key in its and None not in (mine[key]["value"], its[key]["value"]):
            both = [of_items(each).get(key) for each in (entry, other)]
            difference = _paired(key[2], *both)
            if difference is None and _same_items(mine[key], its[key]):
                difference = _unpaired(mine[key], its[key])
            if difference:
                against = difference.pop("against", its[key]["value"])
                yield mine[key], its[key] | {"value": against}, difference


def _same_items(mine: dict[str, Any], its: dict[str, Any]) -> bool:
    return None in (mine.get("items"), its.get("items")) or mine["items"] == its["items"]


def _scores(entry: Entry) -> dict[tuple, dict[str, Any]]:
    rows = entry.record.result["scores"]
    return {(row["task"], row["filter"], row["metric"]): row for row in rows}


def _paired(metric: str, mine, its) -> dict[str, Any] | None:
    """The difference on the items that both have, and `against` if the other has more of them;
    None where a score does not follow from its items. One that learned from held-out documents is
    not asked about those, and the numbers of its items are others."""
    if mine is None or its is None:
        return None
    if not mine.index.equals(its.index):
        by_content = mine.droplevel("doc_id"), its.droplevel("doc_id")
        if all(each.index.is_unique for each in by_content):
            mine, its = by_content
    first, second = pairs.of_both(mine, its)
    if not len(first):
        return None
    made = paired_sums.compared(metric, first, second)
    found = {name: getattr(made, name) for name in ("items", "difference", "standard_error")}
    found |= {"test": made.test, "p": made.p}
    if len(first) < len(its):
        found["against"] = paired_sums.score(metric, second.sum(0))
    return found | {"only_after": made.only_first, "only_against": made.only_second}


def _unpaired(mine: dict[str, Any], its: dict[str, Any]) -> dict[str, Any]:
    errors = (mine.get("standard_error"), its.get("standard_error"))
    error = None if None in errors else math.hypot(*errors)
    difference = mine["value"] - its["value"]
    found = {"difference": difference, "standard_error": error, "items": mine.get("items")}
    return found | {"test": None, "p": None}
