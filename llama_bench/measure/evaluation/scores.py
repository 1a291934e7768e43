"""What lm-eval returns of one task, as rows: the one place that knows its "acc,none" keys.

Beside lm-eval's own metrics stand the smooth ones of multiple choice (choices.py), and all of them
once more for each way in which a task's items were made, where they say so (`construction`).
"""

from __future__ import annotations

import math
from collections import defaultdict

from llama_bench.measure.evaluation import choices, standard_errors
from llama_bench.measure.evaluation.choices import OF_CHOICES, Item
from llama_bench.measure.evaluation.remarks import Remarks
from llama_bench.measure.evaluation.standard_errors import OF_LIKELIHOODS


def rows(answered: dict, tasks: dict, remarks: Remarks) -> list[dict]:
    """docs/protocol.md's `scores` from lm-eval's result dictionary, one per task and metric.

    `tasks` are lm-eval's, by name; groups are put together of these rows (groups.py)."""
    found: list[dict] = []
    for name in answered["results"]:
        about = {
            "task": name,
            "version": _text(answered["versions"].get(name)),
            "shots": answered["n-shot"].get(name),
            **remarks.of(name),
        }
        samples = answered["samples"].get(name, [])
        items = [item for _, item in items_of(samples, tasks[name], remarks)]
        made = _of_task(answered, name, tasks[name], samples, items) + _smooth(samples, items)
        first = _first(answered["configs"].get(name, {}))
        found += [{**about, **row, "first": row["metric"] == first} for row in made]
    return found


def _scored(metrics: dict):
    """(metric, filter, value) of lm-eval's "metric,filter" keys, without its standard errors."""
    for key, value in metrics.items():
        metric, comma, filtered = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, (int, float)):
            yield metric, filtered, float(value)


def _of_task(answered: dict, name: str, task, samples: list[dict], items: list[Item]) -> list[dict]:
    made = []
    for metric, filtered, value in _scored(answered["results"][name]):
        asked = [s for s in samples if s["filter"] == filtered and metric in s]
        values = [item_value(sample, metric) for sample in asked]
        aggregate = task.aggregation().get(metric)
        if any(map(impossible, asked)) and metric in OF_CHOICES:
            value = math.fsum(values) / len(values)
        elif metric in OF_LIKELIHOODS and not all(map(_is_finite, values)):
            values = [each for each in values if _is_finite(each)]
            value = aggregate(values) if values else math.nan
        made.append(
            {
                "metric": metric,
                "filter": filtered,
                "value": value if math.isfinite(value) else None,
                "standard_error": standard_errors.of_metric(metric, value, values, aggregate),
                "chance": _chance(answered["configs"].get(name, {}), metric, items),
                "higher_is_better": answered["higher_is_better"].get(name, {}).get(metric),
                "items": len(values) if asked else answered["results"][name].get("sample_len"),
            }
        )
    return made


def _is_finite(value) -> bool:
    """Of a log-likelihood, or of one with its weight."""
    return all(map(math.isfinite, value if isinstance(value, (tuple, list)) else (value,)))


def _smooth(samples: list[dict], items: list[Item]) -> list[dict]:
    if not items:
        return []
    own, filtered = samples[0]["metrics"], samples[0]["filter"]
    return [{**r, "filter": filtered} for r in choices.scores(items) if r["metric"] not in own]


def items_of(samples: list[dict], task, remarks: Remarks) -> list[tuple[dict, Item]]:
    """The questions of a multiple-choice task as lm-eval logged them, each with what was right;
    none of any other task."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return []
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
    """Places of the right choices; where every choice has a context of its own, the text tells.
    None of a task that judges the answers itself: what it calls its target need not be one."""
    if task.config.process_results is not None:
        return ()
    told = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    told = told if isinstance(told, list) else [told]
    places = [texts.index(one) if isinstance(one, str) and one in texts else one for one in told]
    return tuple(p for p in places if isinstance(p, int) and 0 <= p < len(texts))


def note_lost_labels(answered: dict, tasks: dict, remarks: Remarks) -> None:
    """Remarks on multiple choice whose label is none of the choices. A task that judges the answers
    itself may do without labels."""
    for name, samples in answered["samples"].items():
        if tasks[name].config.process_results is None:
            for sample, item in items_of(samples, tasks[name], remarks):
                if not item.gold:
                    reason = "its label is none of its choices"
                    remarks.refuse(name, sample["doc_id"], len(item.choices), reason)


def answers(answered: dict, tasks: dict, remarks: Remarks) -> list[dict]:
    """docs/protocol.md's `answers` of all multiple-choice tasks."""
    found = []
    for name, samples in answered["samples"].items():
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
            items = [item for _, item in items_of(part, tasks[name], remarks)]
            found += [
                {"task": name, "construction": made, **row}
                for row in _means(part) + _smooth(part, items)
            ]
    return found


def _means(samples: list[dict]) -> list[dict]:
    """Of the metrics that are means of numbers: a perplexity is none of its log-likelihoods."""
    made = []
    for metric in dict.fromkeys(metric for sample in samples for metric in sample["metrics"]):
        asked = [sample for sample in samples if metric in sample]
        values = [item_value(sample, metric) for sample in asked]
        is_number = all(isinstance(value, (int, float)) for value in values)
        if metric in OF_LIKELIHOODS or not is_number:
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


def _first(config: dict) -> str | None:
    """The metric that a task's file lists first."""
    return (config.get("metric_list") or [{}])[0].get("metric")


def _chance(config: dict, metric: str, items: list[Item]) -> float | None:
    """What the task's metadata says of its first metric; of a choice, the mean share of right
    answers among those there are."""
    known = (config.get("metadata") or {}).get("chance")
    if known is not None and metric in (_first(config), *OF_CHOICES):
        return float(known)
    return choices.chance(metric, items) if metric in OF_CHOICES else None
