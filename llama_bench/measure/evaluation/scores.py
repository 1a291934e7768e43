"""What lm-eval returns of one task, as rows: the one place that knows its "acc,none" keys.

Beside lm-eval's own metrics stand the smooth ones of multiple choice (choices.py), and all of them
once more for each way in which a task's items were made, where they say so (`construction`).
"""

from __future__ import annotations

import math
from collections import defaultdict

from llama_bench.measure.evaluation import choices, standard_errors
from llama_bench.measure.evaluation.choices import Item
from llama_bench.measure.evaluation.remarks import Remarks

OF_CHOICES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")


def rows(answered: dict, tasks: dict, remarks: Remarks) -> list[dict]:
    """docs/protocol.md's `scores` from lm-eval's result dictionary, one per task and metric.

    `tasks` are lm-eval's, by name; groups are put together of these rows (groups.py)."""
    found: list[dict] = []
    for name, metrics in answered["results"].items():
        about = {
            "task": name,
            "version": _text(answered["versions"].get(name)),
            "shots": answered["n-shot"].get(name),
            **remarks.of(name),
        }
        samples = answered["samples"].get(name, [])
        made = _of_task(answered, name, metrics, tasks[name], samples)
        made += _smooth(samples, tasks[name], remarks)
        found += [{**about, **row} for row in made]
    return found


def _scored(metrics: dict):
    """(metric, filter, value) of lm-eval's "metric,filter" keys, without its standard errors."""
    for key, value in metrics.items():
        metric, comma, filtered = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, (int, float)):
            yield metric, filtered, float(value)


def _of_task(answered: dict, name: str, metrics: dict, task, samples: list[dict]) -> list[dict]:
    made = []
    for metric, filtered, value in _scored(metrics):
        asked = [s for s in samples if s["filter"] == filtered and metric in s]
        values = [item_value(sample, metric) for sample in asked]
        if any(map(impossible, asked)) and metric in OF_CHOICES:
            value = math.fsum(values) / len(values)
        aggregate = task.aggregation().get(metric)
        made.append(
            {
                "metric": metric,
                "filter": filtered,
                "value": value if math.isfinite(value) else None,
                "standard_error": standard_errors.of_metric(metric, value, values, aggregate),
                "chance": _chance(answered["configs"].get(name, {}), metric, samples),
                "higher_is_better": answered["higher_is_better"].get(name, {}).get(metric),
                "items": len(values) or metrics.get("sample_len"),
            }
        )
    return made


def _smooth(samples: list[dict], task, remarks: Remarks) -> list[dict]:
    if task.OUTPUT_TYPE != "multiple_choice":
        return []
    made = choices.scores([item for _, item in items_of(samples, task, remarks)])
    own = samples[0]["metrics"]
    return [{**row, "filter": samples[0]["filter"]} for row in made if row["metric"] not in own]


def items_of(samples: list[dict], task, remarks: Remarks) -> list[tuple[dict, Item]]:
    """The questions of a multiple-choice task as lm-eval logged them, each with what was right."""
    found = []
    for sample in samples:
        if sample["filter"] != samples[0]["filter"] or task.config.doc_to_choice is None:
            continue
        texts = tuple(map(str, task.doc_to_choice(sample["doc"])))
        keys = [(task.config.task, sample["doc_id"], place) for place in range(len(texts))]
        likelihoods = [answer[0] for answer in sample["filtered_resps"][: len(texts)]]
        sizes = [remarks.scored_bytes.get(key, 0) for key in keys]
        right = _right(task, sample["doc"], texts)
        found.append((sample, Item(tuple(likelihoods), tuple(sizes), texts, right)))
    return found


def _right(task, doc: dict, texts: tuple[str, ...]) -> tuple[int, ...]:
    """Places of the right choices; where every choice has a context of its own, the text tells."""
    told = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    told = told if isinstance(told, list) else [told]
    places = [texts.index(one) if isinstance(one, str) and one in texts else one for one in told]
    return tuple(p for p in places if isinstance(p, int) and 0 <= p < len(texts))


def answers(answered: dict, tasks: dict, remarks: Remarks) -> list[dict]:
    """docs/protocol.md's `answers` of all multiple-choice tasks."""
    found = []
    for name, samples in answered["samples"].items():
        if tasks[name].OUTPUT_TYPE == "multiple_choice":
            items = [item for _, item in items_of(samples, tasks[name], remarks)]
            found += [{"task": name, **row} for row in choices.answers(items)]
    return found


def constructions(answered: dict, tasks: dict, remarks: Remarks) -> list[dict]:
    """docs/protocol.md's `constructions`: scores of the items that were made in one way."""
    found = []
    for name, samples in answered["samples"].items():
        parts = defaultdict(list)
        for sample in samples:
            made = sample["doc"].get("construction") if isinstance(sample["doc"], dict) else None
            if made is not None:
                parts[str(made)].append(sample)
        for made, part in sorted(parts.items()):
            found += [
                {"task": name, "construction": made, **row}
                for row in _means(part) + _smooth(part, tasks[name], remarks)
            ]
    return found


def _means(samples: list[dict]) -> list[dict]:
    """Of the metrics that are means of numbers."""
    made = []
    for metric in dict.fromkeys(metric for sample in samples for metric in sample["metrics"]):
        asked = [sample for sample in samples if metric in sample]
        values = [item_value(sample, metric) for sample in asked]
        if not all(isinstance(value, (int, float)) for value in values):
            continue
        made.append(
            {
                "metric": metric,
                "filter": samples[0]["filter"],
                "value": math.fsum(values) / len(values),
                "standard_error": standard_errors.mean_error([float(v) for v in values]),
                "items": len(values),
            }
        )
    return made


def impossible(sample: dict) -> bool:
    """Whether a continuation of this item could not be scored."""
    answers = sample["filtered_resps"]
    return any(isinstance(a, (tuple, list)) and a[0] == -math.inf for a in answers)


def item_value(sample: dict, metric: str):
    """The item's value; an item that could not be scored is wrong, whatever argmax makes of it."""
    return 0.0 if metric in OF_CHOICES and impossible(sample) else sample[metric]


def _text(value) -> str | None:
    return None if value in (None, "N/A") else str(value)


def _chance(config: dict, metric: str, samples: list[dict]) -> float | None:
    """What the task's metadata says of its main metric; of a choice among n, the mean of 1/n."""
    metadata = config.get("metadata") or {}
    first = (config.get("metric_list") or [{}])[0].get("metric")
    known = metadata.get("chance")
    if known is not None and metric in (first, *OF_CHOICES):
        return float(known)
    if config.get("output_type") != "multiple_choice" or metric not in OF_CHOICES or not samples:
        return None
    twice = 2 if any("acc_mutual_info" in sample for sample in samples) else 1
    return sum(twice / len(sample["arguments"]) for sample in samples) / len(samples)
