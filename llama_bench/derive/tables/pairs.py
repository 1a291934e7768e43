"""Two sizes on the same items: which differences are more than chance (judging/paired.py).

Compared are neighbouring sizes, and the smallest with the largest, each at its largest budget, on
the task's main metric and on what moves before it does: of multiple choice the probability of the
right answer and its bits per byte, of one continuation its perplexity. Several seeds of a size are
one model: an item has the mean of their values. The items come from items.parquet of the
evaluations, matched by their content.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from llama_bench.derive.entry import Entry
from llama_bench.derive.judging import paired, paired_sums
from llama_bench.derive.tables import main_metric, study_tables
from llama_bench.fields import UserError

_COLUMNS = ("task", "filter", "doc_id", "doc_hash", "choice", "log_likelihood", "bytes", "gold")
SMOOTH = "gold_probability"
_BESIDE = (SMOOTH, main_metric.TASK_LOSS, "perplexity")
_ITEM = ["doc_id", "doc_hash"]

# (task, filter, metric) -> a frame by item: its statistics (judging/paired_sums.py)
Values = dict[tuple[str, str, str], Any]


def rows(entries: list[Entry]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of `pairs` from the evaluations among `entries`."""
    own = _own_metrics(entries)
    for (suite, _), models in sorted(_models(entries).items(), key=str):
        values = {model: _mean([statistics(entry) for entry in runs]) for model, runs in models}
        main = _main_metrics([entry for _, runs in models for entry in runs], own)
        keys = dict.fromkeys(key for model, _ in models for key in values[model])
        for key in sorted(keys):
            if key[2] not in (main.get(key[0]), *_BESIDE):
                continue
            found = list(_compared(key, models, values))
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


def _own_metrics(entries: list[Entry]) -> dict[str, str]:
    """By task, as words/scores.py has it of the tables."""
    ok = [entry for entry in entries if entry.status == "ok"]
    listed = {
        score["task"]: score["metric"]
        for entry in ok
        if entry.verb == "evaluate"
        for score in entry.record.result["scores"]
        if score.get("first")
    }
    return listed | {
        task: about["metric"]
        for entry in ok
        if entry.verb == "tasks"
        for task, about in entry.record.result["tasks"].items()
    }


def _main_metrics(entries: list[Entry], own: dict[str, str]) -> dict[str, str]:
    """By task, as the report chooses it (words/scores.py)."""
    known: dict[str, set[str]] = defaultdict(set)
    for score in (score for entry in entries for score in entry.record.result["scores"]):
        if score["value"] is not None:
            known[score["task"]].add(score["metric"])
    return {task: main_metric.of(metrics, own.get(task)) for task, metrics in known.items()}


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
        made = _difference(task[2], values[model][task], values[against][task])
        if made is None:
            continue
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


def _difference(metric: str, mine, its) -> paired.Comparison | None:
    """On the items that both have; None without any."""
    first, second = of_both(mine, its)
    return paired_sums.compared(metric, first, second) if len(first) else None


def of_both(mine, its) -> tuple[np.ndarray, np.ndarray]:
    """The statistics, (n, k) each, of the items that both have, with the same weight."""
    both = mine.index.intersection(its.index).sort_values()
    first, second = (frame.loc[both].to_numpy(float) for frame in (mine, its))
    if first.shape[1] == 2:
        same = first[:, 1] == second[:, 1]
        first, second = first[same], second[same]
    return first, second


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


def statistics(entry: Entry) -> Values:
    """Every item's statistics, of every metric whose score follows from them; empty where the items
    are not kept."""
    path = entry.folder / "items.parquet"
    if not path.exists():
        return {}
    frame = _read(path).sort_values([*_ITEM, "choice"], kind="stable")
    scores: dict[tuple[str, str], dict[str, float | None]] = defaultdict(dict)
    for score in entry.record.result["scores"]:
        scores[score["task"], score["filter"]][score["metric"]] = score["value"]
    found: Values = {}
    for task, mine in frame.groupby(["task", "filter"], sort=False):
        named = scores[task]
        found |= {
            (*task, metric): values
            for metric, values in (*_kept(mine, named), *_smooth(mine, named))
            if len(values)
        }
    return found


def _read(path):
    import pandas

    try:
        return pandas.read_parquet(path, columns=[*_COLUMNS, "statistics"])
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{path}: is no table of items ({first}); delete the run's folder to make it again"
        ) from None


def _kept(items, named: dict[str, float | None]) -> Iterator[tuple[str, Any]]:
    """What the items keep of metrics whose score it gives again; of others, such as a median, it
    says nothing."""
    import pandas

    items = items[items["statistics"].notna()].drop_duplicates(_ITEM)
    items = items.explode("statistics").dropna(subset=["statistics"])
    metrics = items["statistics"].map(lambda each: each["metric"])
    for metric, mine in items.groupby(metrics, sort=False):
        sums = np.array([each["sums"] for each in mine["statistics"]])
        score = named.get(metric)
        again = paired_sums.score(metric, sums.sum(0))
        if score is not None and math.isclose(score, again, rel_tol=1e-6, abs_tol=1e-9):
            yield metric, pandas.DataFrame(sums, index=pandas.MultiIndex.from_frame(mine[_ITEM]))


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
    yield SMOOTH, _of_means(sums, sums["right"] / sums["all"])
    gold = items[items["gold"] & (items["bytes"] > 0)].sort_values(
        "log_likelihood", ascending=False
    )
    gold = gold.drop_duplicates(_ITEM)  # of several right answers the likeliest
    bits = -gold["log_likelihood"] / math.log(2) / gold["bytes"]
    yield main_metric.TASK_LOSS, _of_means(gold, bits)


def _of_means(items, values):
    return items[_ITEM].assign(value=values, weight=1.0).set_index(_ITEM)
