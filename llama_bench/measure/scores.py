"""What lm-eval returns, as rows: the one place that knows its "acc,none" keys and "N/A" strings.

Standard errors are this module's own, from the logged samples: of a mean, the usual one; of a
ratio of sums (bits per byte is nats over bytes of all documents) the ratio estimator's, by
linearisation (Cochran, Sampling Techniques, 3rd ed., section 6.4); of exp(x) the delta method's.
lm-eval draws 100,000 bootstraps for some of them and has none for others.
"""

from __future__ import annotations

import math

import pyarrow as pa

_LN2 = math.log(2)

# metrics of lm-eval whose value is exp(-x) of a mean or ratio x of log-likelihoods
_EXPONENTIAL = ("perplexity", "word_perplexity", "byte_perplexity")
_OF_CHOICES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")


def rows(outcome: dict, unscored: dict[str, int], truncated: dict[str, int]) -> list[dict]:
    """docs/protocol.md's `scores` from lm-eval's result dictionary, one per task and metric."""
    found = []
    for task, metrics in outcome["results"].items():
        samples = outcome["samples"].get(task, [])
        for key, value in metrics.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            asked = [s for s in samples if s["filter"] == filtered and metric in s]
            values = [_value(sample, metric) for sample in asked]
            if any(map(_impossible, asked)) and metric in _OF_CHOICES:
                value = math.fsum(values) / len(values)
            found.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": filtered,
                    "value": float(value),
                    "standard_error": standard_error(metric, value, values),
                    "chance": _chance(outcome["configs"].get(task, {}), metric, samples),
                    "higher_is_better": outcome["higher_is_better"].get(task, {}).get(metric),
                    "items": len(values) or metrics.get("sample_len"),
                    "version": _text(outcome["versions"].get(task)),
                    "shots": outcome["n-shot"].get(task),
                    "unscored": unscored.get(task, 0),
                    "truncated": truncated.get(task, 0),
                }
            )
    return found


def _impossible(sample: dict) -> bool:
    """Whether a continuation of this item could not be scored."""
    answers = sample["filtered_resps"]
    return any(isinstance(a, (tuple, list)) and a[0] == -math.inf for a in answers)


def _value(sample: dict, metric: str):
    """The item's value; an item that could not be scored is wrong, whatever argmax makes of it."""
    return 0.0 if metric in _OF_CHOICES and _impossible(sample) else sample[metric]


def _text(value) -> str | None:
    return None if value in (None, "N/A") else str(value)


def _chance(config: dict, metric: str, samples: list[dict]) -> float | None:
    """What the task's own metadata says; for a choice among n, the mean of 1/n."""
    known = (config.get("metadata") or {}).get("chance")
    if known is not None:
        return float(known)
    if config.get("output_type") != "multiple_choice" or metric not in _OF_CHOICES or not samples:
        return None
    twice = 2 if any("acc_mutual_info" in sample for sample in samples) else 1
    return sum(twice / len(sample["arguments"]) for sample in samples) / len(samples)


def standard_error(metric: str, value: float, values: list) -> float | None:
    """Of a metric from its per-item values: numbers, or (log-likelihood, weight) pairs."""
    if len(values) < 2:
        return None
    if all(isinstance(v, (tuple, list)) and len(v) == 2 for v in values):
        if metric not in ("bits_per_byte", *_EXPONENTIAL):
            return None
        error = ratio_error([-ll for ll, _ in values], [weight for _, weight in values])
        scale = 1 / _LN2 if metric == "bits_per_byte" else value
    elif all(isinstance(v, (int, float)) for v in values):
        error = mean_error([float(v) for v in values])
        scale = value if metric in _EXPONENTIAL else 1.0
        if metric not in _EXPONENTIAL and not math.isclose(
            math.fsum(values) / len(values), value, rel_tol=1e-9, abs_tol=1e-12
        ):
            return None  # not a mean of what was logged
    else:
        return None
    return scale * error if math.isfinite(error) else None


def mean_error(values: list[float]) -> float:
    """Standard deviation of the items over the root of their number."""
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return math.sqrt(squares / (len(values) - 1) / len(values))


def ratio_error(amounts: list[float], weights: list[float]) -> float:
    """Standard error of sum(amounts) / sum(weights) over items drawn together."""
    total = math.fsum(weights)
    ratio = math.fsum(amounts) / total
    squares = math.fsum((a - ratio * w) ** 2 for a, w in zip(amounts, weights, strict=True))
    return math.sqrt(squares * len(weights) / (len(weights) - 1)) / total


ITEMS = pa.schema(
    [
        ("task", pa.string()),
        ("filter", pa.string()),
        ("doc_id", pa.int32()),
        ("choice", pa.int16()),
        ("doc_hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("text", pa.string()),
        ("bytes", pa.int64()),
        ("log_likelihood", pa.float64()),
        ("is_greedy", pa.bool_()),
        ("target", pa.string()),
        ("verdict", pa.float64()),
    ]
)


def items(samples: dict[str, list[dict]]) -> pa.Table:
    """One row per item and choice: what was asked (a continuation) or answered (a generation).

    `verdict` is the item's value of the task's first metric (for bits per byte, the document's);
    `log_likelihood` is in nats, null where the continuation could not be scored.
    """
    columns: dict[str, list] = {name: [] for name in ITEMS.names}
    for task, of_task in samples.items():
        for sample in of_task:
            for choice, answer in enumerate(sample["filtered_resps"]):
                row = _item(task, sample, choice, answer)
                for name, column in columns.items():
                    column.append(row.get(name))
    return pa.table(columns, schema=ITEMS)


def _item(task: str, sample: dict, choice: int, answer) -> dict:
    arguments = sample["arguments"][choice]
    row = {
        "task": task,
        "filter": sample["filter"],
        "doc_id": sample["doc_id"],
        "choice": choice,
        "doc_hash": sample["doc_hash"][:16],
        "prompt_hash": sample["prompt_hash"][:16],
        "verdict": _verdict(sample),
    }
    if isinstance(answer, (tuple, list)) and len(answer) == 2:  # log-likelihood of a continuation
        likelihood, row["is_greedy"] = answer
        row["text"], row["target"] = arguments[1], str(sample["target"])
        row["bytes"] = len(arguments[1].encode())
    elif isinstance(answer, float):  # of a whole text, which is its own target
        likelihood, row["bytes"] = answer, len(arguments[0].encode())
    else:
        likelihood, row["text"], row["target"] = None, str(answer), str(sample["target"])
    if likelihood is not None and math.isfinite(likelihood):
        row["log_likelihood"] = float(likelihood)
    return row


def _verdict(sample: dict) -> float | None:
    if not sample["metrics"]:
        return None
    value = _value(sample, sample["metrics"][0])
    if isinstance(value, (tuple, list)) and len(value) == 2 and value[1]:
        return -value[0] / value[1] / _LN2
    return float(value) if isinstance(value, (int, float)) else None
