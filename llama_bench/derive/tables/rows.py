"""From one run's record to the rows of the tables, verb by verb.

Nothing is computed here that is not a plain quotient: a record's numbers become rows under the
names of docs/protocol.md, and what a record does not say is null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import (
    curve_file,
    evaluated,
    failures,
    fused,
    probed,
    study_tables,
    tuned,
)
from llama_bench.derive.tables.study_tables import Row
from llama_bench.shape import Shape

_TRAINED = ("budget", "seed", "data")
_ROLE = ("flop_budget", "role", "factor", "fuse", "same_text")


def of(entry: Entry) -> Iterator[Row]:
    """All rows of one run, each with the name of its table."""
    yield "runs", _run(entry)
    if entry.record is None:
        return
    yield "provenance", _provenance(entry)
    if entry.status != "ok":
        yield failures.row(entry, _asked(entry), entry.status, entry.record.reason)
    yield from _BY_VERB[entry.verb](entry, entry.record.result)


def _asked(entry: Entry) -> str:
    """The verb, and of a fine-tuning or a fusion the name that the study gives it."""
    named = entry.labels.get("finetune") or entry.labels.get("fuse")
    return f"{entry.verb} {named}" if named else entry.verb


def _run(entry: Entry) -> dict[str, Any]:
    record, labels = entry.record, entry.labels
    seconds = record.seconds if record else {}
    provenance = record.provenance if record else {}
    names = ("model", "budget", "seed", "data", "suite", "fuse")
    known = {name: labels.get(name) for name in names} | entry.tuning
    return study_tables.row(
        "runs",
        id=entry.id,
        verb=entry.verb,
        origin=entry.origin,
        status=entry.status,
        reason=record.reason if record else None,
        seconds_startup=seconds.get("startup"),
        seconds_total=seconds.get("total"),
        threads=provenance.get("threads"),
        host=provenance.get("machine", {}).get("host"),
        path=entry.path,
        log=entry.log,
        **known,
    )


def _provenance(entry: Entry) -> dict[str, Any]:
    content = entry.record.provenance
    machine, git = content.get("machine", {}), content.get("git") or {}
    packages = content.get("packages", {})
    return study_tables.row(
        "provenance",
        run=entry.id,
        verb=entry.verb,
        threads=content.get("threads"),
        python=content.get("python"),
        packages=", ".join(f"{name} {version}" for name, version in sorted(packages.items())),
        git_commit=git.get("commit"),
        git_changed=git.get("changed"),
        began=content.get("began"),
        command=" ".join(map(str, content.get("command") or [])) or None,
        **{name: machine.get(name) for name in ("host", "system", "processor", "cores")},
        memory_bytes=machine.get("memory_bytes"),
    )


def _prepare(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    counted, named = ("documents", "bytes", "tokens"), {"data": entry.labels.get("data")}
    whole = study_tables.picked("data", result, but=counted) | named
    corpus = entry.record.spec.get("corpus", {})
    whole |= {"run": entry.id, "corpus": corpus.get("repo") or corpus.get("source")}
    for part in result.get("documents", {}):
        counts = {name: result.get(name, {}).get(part) for name in counted}
        yield "data", study_tables.row("data", part=part, **counts, **whole)
    for position, step in enumerate(result.get("cleaning") or []):
        values = study_tables.picked("cleaning", step) | named | {"run": entry.id}
        yield "cleaning", study_tables.row("cleaning", position=position, **values)


def _tasks(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    """What is asked of fine-tuned models alone is a part of the same tasks."""
    if entry.record.spec.get("apart_from"):
        return
    for task, facts in result.get("tasks", {}).items():
        values = study_tables.picked("tasks", facts) | {"run": entry.id, "task": task}
        yield "tasks", study_tables.row("tasks", **values)
    for task, reason in result.get("left_out", {}).items():
        yield "tasks", study_tables.row("tasks", run=entry.id, task=task, left_out=reason)
        yield failures.row(entry, task, "left out", reason)


def _train(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    spec, ok = entry.record.spec, entry.status == "ok"
    shape = spec.get("model", {})
    # of the spec neither the tokens asked for (the result has those trained on) nor the shape
    values = study_tables.picked("trainings", spec, but=("model", "tokens", "data"))
    values |= study_tables.picked("trainings", shape) | entry.about(*_TRAINED, *_ROLE)
    values |= {"status": entry.status, "reason": entry.record.reason, "prepare": spec.get("data")}
    values["role"] = values["role"] or "ladder"
    if ok:
        flops = result.get("flops", {})
        values |= study_tables.picked("trainings", result)
        values |= {"flops_exact": flops.get("exact"), "flops_six_n_d": flops.get("six_n_d")}
    else:
        values |= {"ended_at_step": result.get("step"), "ended_at_loss": result.get("loss")}
        values.setdefault("parameters_without_embeddings", Shape.model_validate(shape).size)
    training = study_tables.row("trainings", **values)
    yield "trainings", training
    if ok and training["loss"] is not None and training["role"] == "ladder":
        if training["data"] is None:
            yield "ladder", _point("ladder", training)
        if training["same_text"]:
            yield "repetition", _point("repetition", training)
    yield from curve_file.rows(entry, "curves", "tokens", entry.about(*_TRAINED))


def _point(table: str, training: dict[str, Any]) -> dict[str, Any]:
    return study_tables.row(
        table,
        params=training["parameters_without_embeddings"],
        flops=training["flops_exact"],
        budget=training["flop_budget"],
        token_budget=training["budget"],
        params_all=training["parameters_all"],
        params_in_matrix_products=training["parameters_in_matrix_products"],
        **study_tables.picked(table, training, but=("budget",)),
    )


_BY_VERB: dict[str, Callable[[Entry, dict[str, Any]], Iterator[Row]]] = {
    "prepare": _prepare,
    "tasks": _tasks,
    "examples": tuned.examples,
    "train": _train,
    "finetune": tuned.finetune,
    "fuse": fused.rows,
    "evaluate": evaluated.rows,
    "limits": probed.limits,
    "probe": probed.rows,
}

VERBS = tuple(_BY_VERB)
