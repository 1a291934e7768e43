"""Two sizes on the same items: which differences are more than chance (judging/paired.py).

Compared are neighbouring sizes, and the smallest with the largest, each at its largest budget, on
the task's first metric and, of multiple choice, on the probability of the right answer and its bits
per byte. Several seeds of a size are one model: an item has the mean of their values. The items
come from items.parquet of the evaluations, matched by their content.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from llama_bench.derive.entry import Entry
from llama_bench.derive.judging import paired
from llama_bench.derive.tables import main_metric, study_tables
from llama_bench.fields import UserError

_COLUMNS = ("task", "filter", "doc_id", "doc_hash", "choice", "log_likelihood", "bytes", "gold")
SMOOTH = "gold_probability"
_ITEM = ["doc_id", "doc_hash"]

# (task, filter, metric) -> a frame with the columns value and weight, by item
Values = dict[tuple[str, str, str], Any]


def rows(entries: list[Entry]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of `pairs` from the evaluations among `entries`."""
    for (suite, _), models in sorted(_models(entries).items(), key=str):
        values = {model: _mean([of_items(entry) for entry in runs]) for model, runs in models}
        tasks = dict.fromkeys(key for model, _ in models for key in values[model])
        for task in sorted(tasks):
            found = list(_compared(task, models, values))
            adjusted = paired.holm([row["p"] for row in found])
            for row, p in zip(found, adjusted, strict=True):
                told = None if p is None else p < paired.LEVEL
                row |= {"suite": suite, "p_adjusted": p, "told_apart": told}
                yield "pairs", study_tables.row("pairs", **row)


def _models(entries: list[Entry]) -> dict[tuple, list[tuple[str, list[Entry]]]]:
    """(suite, origin) -> [(model, its evaluations, one a seed, at the largest budget)], by size."""
    found: dict[tuple, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        labels = entry.labels
        if entry.verb != "evaluate" or entry.status != "ok":
            continue
        if labels.get("state") or labels.get("data") or entry.altered or not _size(entry):
            continue
        found[labels.get("suite"), entry.origin][labels.get("model")].append(entry)
    models = {}
    for group, runs in found.items():
        ordered = sorted(runs.items(), key=lambda item: _size(item[1][0]))
        models[group] = [
            (model, [e for e in mine if _budget(e) == max(map(_budget, mine))])
            for model, mine in ordered
        ]
    return models


def _size(entry: Entry) -> int | None:
    return (entry.record.result.get("parameters") or {}).get("without_embeddings")


def _budget(entry: Entry) -> int:
    return entry.labels.get("budget") or 0


def _compared(task: tuple, models: list, values: dict[str, Values]) -> Iterator[dict[str, Any]]:
    pairs = [(place, place + 1) for place in range(len(models) - 1)]
    pairs += [(0, len(models) - 1)] if len(models) > 2 else []
    for small, large in pairs:
        (against, its), (model, mine) = models[small], models[large]
        if task not in values[model] or task not in values[against]:
            continue
        both = values[model][task].merge(
            values[against][task], left_index=True, right_index=True, suffixes=("", "_against")
        )
        both = both[both["weight"] == both["weight_against"]].sort_index()
        if not len(both):
            continue
        first, second, weight = (
            both[name].to_numpy(float) for name in ("value", "value_against", "weight")
        )
        made = paired.compared(first, second, weight)
        yield {
            **dict(zip(("task", "filter", "metric"), task, strict=True)),
            **{"model": model, "against": against, "origin": mine[0].origin},
            "neighbours": large - small == 1,
            "parameters_without_embeddings": _size(mine[0]),
            "against_parameters_without_embeddings": _size(its[0]),
            "budget": _budget(mine[0]) or None,
            "against_budget": _budget(its[0]) or None,
            "seeds": min(len(mine), len(its)),
            **{name: getattr(made, name) for name in ("items", "difference", "standard_error")},
            **{"test": made.test, "p": made.p},
            **{"only_model": made.only_first, "only_against": made.only_second},
        }


def _mean(found: list[Values]) -> Values:
    """The mean over seeds, of the items that all of them have."""
    mean = {}
    for key in found[0]:
        frames = [values[key] for values in found if key in values]
        total = frames[0]
        for frame in frames[1:]:
            total = total.add(frame).dropna()
        mean[key] = total / len(frames)
    return mean


def of_items(entry: Entry) -> Values:
    """Every item's value of every metric that is compared; empty where the items are not kept."""
    path = entry.folder / "items.parquet"
    if not path.exists():
        return {}
    import pandas

    try:
        frame = pandas.read_parquet(path, columns=[*_COLUMNS, "verdict"])
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{path}: is no table of items ({first}); delete the run's folder to make it again"
        ) from None
    frame = frame.sort_values([*_ITEM, "choice"], kind="stable")
    found: Values = {}
    for (task, filtered), mine in frame.groupby(["task", "filter"], sort=False):
        named = {
            score["metric"]: score["value"]
            for score in entry.record.result["scores"]
            if (score["task"], score["filter"]) == (task, filtered)
        }
        found |= {
            (task, filtered, metric): values.set_index(_ITEM)
            for metric, values in (_first(mine, named), *_smooth(mine, named))
            if values is not None and len(values)
        }
    return found


def _first(items, named: dict[str, float | None]) -> tuple[str, Any]:
    """The metric that the items' verdicts are of: its score is their mean. Of bits per byte, which
    is no mean, nats and bytes."""
    items = items.drop_duplicates(_ITEM)
    if next(iter(named), None) == "bits_per_byte":
        metric = "bits_per_byte"
        items = items.dropna(subset=["log_likelihood", "bytes"])
        nats = -items["log_likelihood"] / math.log(2)
        return metric, items[_ITEM].assign(value=nats, weight=items["bytes"].astype(float))
    items = items.dropna(subset=["verdict"])
    mean = items["verdict"].mean()
    known = (name for name, value in named.items() if value is not None)
    metric = next((name for name in known if math.isclose(named[name], mean, abs_tol=1e-9)), None)
    if metric is None:
        return "", None
    return metric, items[_ITEM].assign(value=items["verdict"], weight=1.0)


def _smooth(items, named: dict[str, float | None]) -> Iterator[tuple[str, Any]]:
    """The smooth metrics of the right answer, of items whose choices could all be scored."""
    items = items[items["gold"].notna()]
    if SMOOTH not in named or not len(items):
        return
    likelihood = items.groupby(_ITEM)["log_likelihood"]
    share = np.exp(items["log_likelihood"] - likelihood.transform("max"))
    items = items.assign(gold=items["gold"].astype(bool), all=share)
    items["right"] = share.where(items["gold"], 0.0)
    items = items[likelihood.transform("count") == likelihood.transform("size")]
    sums = items.groupby(_ITEM, as_index=False)[["all", "right"]].sum()
    yield SMOOTH, sums[_ITEM].assign(value=sums["right"] / sums["all"], weight=1.0)
    gold = items[items["gold"] & (items["bytes"] > 0)].sort_values(
        "log_likelihood", ascending=False
    )
    gold = gold.drop_duplicates(_ITEM)  # of several right answers the likeliest
    bits = -gold["log_likelihood"] / math.log(2) / gold["bytes"]
    yield main_metric.TASK_LOSS, gold[_ITEM].assign(value=bits, weight=1.0)
