"""Every item as it was asked and answered, as a table: any score can be made again from it, without
the model.

One row per item and choice (one for a text that is generated or scored as a whole). An item's first
row has its `statistics`: of every metric that is a function of sums over items, what the item gives
to these.
"""

from __future__ import annotations

import json
import math

import pyarrow as pa

from llama_bench.measure.evaluation.remarks import Remarks
from llama_bench.measure.evaluation.scores import item_value, items_of
from llama_bench.measure.evaluation.standard_errors import of_item

_STATISTICS = pa.list_(
    pa.struct([("metric", pa.string()), ("sums", pa.list_(pa.float64()))]),
)
SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("filter", pa.string()),
        ("doc_id", pa.int32()),
        ("choice", pa.int16()),
        ("construction", pa.string()),
        ("doc_hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("prompt", pa.string()),
        ("text", pa.string()),
        ("written", pa.list_(pa.string())),
        ("characters", pa.int32()),
        ("bytes", pa.int64()),
        ("log_likelihood", pa.float64()),
        ("is_greedy", pa.bool_()),
        ("gold", pa.bool_()),
        ("target", pa.string()),
        ("statistics", _STATISTICS),
        ("reason", pa.string()),
    ]
)


def table(answered: dict, tasks: dict, remarks: Remarks) -> pa.Table:
    """All items of some tasks; docs/protocol.md has the columns."""
    columns: dict[str, list] = {name: [] for name in SCHEMA.names}
    for name, samples in answered["samples"].items():
        task = tasks[name]
        known = {s["doc_id"]: item for s, item in items_of(samples, task, remarks)}
        for sample in samples:
            for row in _rows(name, sample, known.get(sample["doc_id"]), remarks):
                for column, values in columns.items():
                    values.append(row.get(column))
    return pa.table(columns, schema=SCHEMA)


def _rows(name: str, sample: dict, item, remarks: Remarks) -> list[dict]:
    construction = sample["doc"].get("construction") if isinstance(sample["doc"], dict) else None
    about = {
        "task": name,
        "filter": sample["filter"],
        "doc_id": sample["doc_id"],
        "construction": None if construction is None else str(construction),
        "doc_hash": sample["doc_hash"][:16],
        "prompt_hash": sample["prompt_hash"][:16],
        "target": _target(sample["target"]),
    }
    found = []
    for choice, answer in enumerate(sample["filtered_resps"]):
        key = (name, sample["doc_id"], choice)
        row = {**about, "choice": choice, "reason": remarks.reasons.get(key)}
        row |= _answer(sample["arguments"][choice], answer, remarks.scored_bytes.get(key))
        row["written"] = _written(sample["resps"][choice], answer)
        if item is not None and choice < len(item.choices):
            row["gold"] = choice in item.gold if item.gold else None
            row["characters"] = len(item.choices[choice])
        found.append(row)
    if found:
        found[0]["statistics"] = _statistics(sample)
    return found


def _answer(asked: tuple, answer, scored_bytes: int | None) -> dict:
    """What was asked and answered: a continuation's likelihood, a whole text's, or text."""
    if isinstance(answer, (tuple, list)) and len(answer) == 2 and isinstance(answer[0], float):
        likelihood, greedy = answer
        row = {"prompt": asked[0], "text": asked[1], "bytes": scored_bytes, "is_greedy": greedy}
    elif isinstance(answer, float):  # of a whole text, which is its own target
        likelihood = answer
        row = {"text": asked[0], "bytes": len(asked[0].encode())}
    else:
        return {"prompt": str(asked[0]), "text": answer if isinstance(answer, str) else str(answer)}
    if math.isfinite(likelihood):
        row["log_likelihood"] = float(likelihood)
    return row


def _written(given: list, answer) -> list[str] | None:
    """What the model wrote, once for every repeat, where a filter has made another text of it."""
    texts = all(isinstance(each, str) for each in given)
    return list(given) if texts and given != [answer] else None


def _target(target) -> str:
    return target if isinstance(target, str) else json.dumps(target, default=str)


def _statistics(sample: dict) -> list[dict]:
    """An item whose value is not finite (it could not be scored) gives nothing."""
    named = dict.fromkeys(metric for metric in sample["metrics"] if metric in sample)
    found = [(metric, of_item(metric, item_value(sample, metric))) for metric in named]
    return [
        {"metric": metric, "sums": sums}
        for metric, sums in found
        if sums is not None and all(map(math.isfinite, sums))
    ]
