"""Rows of fine-tuning: the labelled examples, and what each run that learned from them gave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import curve_file, study_tables
from llama_bench.derive.tables.study_tables import Row

ABSENT = {
    "train": "their label is in no example that was learned from",
    "validation": "their label is in no example that the kept state was chosen by",
}
_TRAINED = ("budget", "seed", "data")
_FROZEN = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "items")
_MAJORITY = ("label", "accuracy", "macro_f1")


def examples(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    if entry.status != "ok":
        return
    task, choices = result.get("task"), result.get("choices")
    about = {"run": entry.id, "finetune": entry.labels.get("finetune"), "task": task}
    counted = ("examples", "documents", "answer_bytes")
    whole = study_tables.picked("examples", result, but=(*counted, "task", "labels")) | about
    for part in result.get("examples", {}):
        counts = {name: (result.get(name) or {}).get(part) for name in counted}
        named = {"part": part, "labels": len(choices) if choices else None}
        yield "examples", study_tables.row("examples", **whole, **counts, **named)
    for part, labels in (result.get("label_counts") or {}).items():
        for label, count in labels.items():
            values = {"part": part, "label": label, "examples": count}
            yield "labels", study_tables.row("labels", **about, **values)
    asked = {name: result.get(name) for name in ("metric", "chance", "higher_is_better")}
    asked |= {"items": (result.get("examples") or {}).get("test")}
    asked |= {"run": entry.id, "task": task, "description": result.get("description")}
    yield "tasks", study_tables.row("tasks", **asked)
    yield from _left_out(entry, result.get("left_out") or {})


def finetune(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    """But of one that a fusion is held against: it is none of the study's (fused.py)."""
    if entry.labels.get("role") == "control":
        return
    spec, status = entry.record.spec, {"status": entry.status, "reason": entry.record.reason}
    values = entry.about(*_TRAINED) | entry.tuning | status | {"base": _base(spec)}
    values |= study_tables.picked("finetunings", spec, but=("examples", "steps", *values))
    values |= {"seconds_total": entry.record.seconds.get("total")}
    if entry.status == "ok":
        # where it came from, and what the study calls it, stand in the labels
        known = ("origin", "fraction", "method", "examples", "answer_tokens")
        values |= study_tables.picked("finetunings", result, but=known)
        values |= {"answer_tokens": result["answer_tokens"]["train"], **_counts(result)}
        values |= _beside(result)
    yield "finetunings", study_tables.row("finetunings", **values)
    for part, reasons in (result.get("left_out") or {}).items():
        yield from _left_out(entry, reasons, part)
    yield from curve_file.rows(entry, "tuning_curves", "step", entry.about() | entry.tuning)


def _base(spec: dict[str, Any]) -> str | None:
    """The run or the model that it began with; None of random weights."""
    base = spec.get("base") or {}
    elsewhere = base.get("pretrained") or {}
    return base.get("run") or elsewhere.get("repo") or elsewhere.get("digest")


def _counts(result: dict[str, Any]) -> dict[str, Any]:
    counts = result["examples"]
    return {
        "examples": counts["train"],
        "validation_examples": counts["validation"],
        "test_examples": counts["test"],
        "test_left_out": sum((result.get("left_out") or {}).get("test", {}).values()),
    }


def _beside(result: dict[str, Any]) -> dict[str, Any]:
    """What the fine-tuned model is held against: its base, and what no fine-tuning takes."""
    before, forgetting = result.get("before") or {}, result.get("forgetting") or {}
    values = {f"before_{name}": value for name, value in before.items()}
    for when, measured in forgetting.items():
        for name in ("loss", "bits_per_byte"):
            values[f"forgetting_{name}_{when}"] = measured.get(name)
        values["forgetting_tokens"] = measured.get("tokens")
    for what, names in (("frozen", _FROZEN), ("majority", _MAJORITY)):
        found = result.get(what) or {}
        values |= {f"{what}_{name}": found.get(name) for name in names}
    return study_tables.picked("finetunings", values)


def _left_out(
    entry: Entry, reasons: dict[str, int], part: str | None = None, kept: bool | None = None
) -> Iterator[Row]:
    about = {"run": entry.id, "verb": entry.verb, "model": entry.labels.get("model")}
    about |= entry.tuning | {"part": part, "kept": kept}
    for reason, count in reasons.items():
        if count:
            values = about | {"reason": reason, "examples": count}
            yield "exclusions", study_tables.row("exclusions", **values)


def absent(entries: list[Entry]) -> Iterator[Row]:
    """Test examples whose label no example of a fine-tuning's train or validation part has."""
    written = {e.id: e for e in entries if e.verb == "examples" and e.status == "ok"}
    for entry in entries:
        if entry.verb != "finetune" or entry.status != "ok" or "finetune" not in entry.labels:
            continue  # the control of a fusion is none of the study's
        examples = written.get(entry.record.spec.get("examples"))
        counts = ((examples and examples.record.result.get("label_counts")) or {}).get("test", {})
        for part, labels in (entry.record.result.get("absent_labels") or {}).items():
            count = sum(counts.get(label, 0) for label in labels)
            yield from _left_out(entry, {ABSENT[part]: count}, "test", kept=True)
