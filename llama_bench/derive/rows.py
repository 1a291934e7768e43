"""From one run's record to the rows of the tables, verb by verb.

Nothing is computed here that is not a plain quotient: a record's numbers become rows under the
names of docs/protocol.md, and what a record does not say is null.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import Any

from llama_bench.derive import tables
from llama_bench.derive.entry import Entry
from llama_bench.fields import UserError
from llama_bench.shape import Shape

Row = tuple[str, dict[str, Any]]  # (table, row)


def of(entry: Entry) -> Iterator[Row]:
    """All rows of one run, each with the name of its table."""
    yield "runs", _run(entry)
    if entry.record is None:
        return
    yield "provenance", _provenance(entry)
    if entry.status != "ok":
        yield _failure(entry, entry.verb, entry.status, entry.record.reason)
    yield from _BY_VERB[entry.verb](entry, entry.record.result)


def _run(entry: Entry) -> dict[str, Any]:
    record, labels = entry.record, entry.labels
    seconds = record.seconds if record else {}
    provenance = record.provenance if record else {}
    known = {name: labels.get(name) for name in ("model", "budget", "seed", "suite")}
    return tables.row(
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
    return tables.row(
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


def _failure(entry: Entry, what: str, status: str, reason: str | None) -> Row:
    about = {"run": entry.id, "verb": entry.verb, "model": entry.labels.get("model")}
    said = {"what": what, "status": status, "reason": reason, "log": entry.log}
    return "failures", tables.row("failures", **about, **said)


def _prepare(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    corpus = entry.record.spec.get("corpus", {})
    whole = (
        "near_duplicate_documents",
        "unreadable_documents",
        "vocab_size",
        "bytes_per_token",
        "corpus_sha256",
    )
    for part in result.get("documents", {}):
        counts = {name: result.get(name, {}).get(part) for name in ("documents", "bytes", "tokens")}
        values = {name: result.get(name) for name in whole}
        values |= {"run": entry.id, "corpus": corpus.get("source"), "part": part}
        yield "data", tables.row("data", **counts, **values)


def _tasks(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    names = ("items", "metric", "chance", "higher_is_better", "description")
    for task, facts in result.get("tasks", {}).items():
        values = {name: facts.get(name) for name in names}
        yield "tasks", tables.row("tasks", run=entry.id, task=task, **values)
    for task, reason in result.get("left_out", {}).items():
        yield "tasks", tables.row("tasks", run=entry.id, task=task, left_out=reason)
        yield _failure(entry, task, "left out", reason)


def _train(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    spec, ok = entry.record.spec, entry.status == "ok"
    shape = spec.get("model", {})
    asked = (
        "context",
        "batch",
        "learning_rate",
        "warmup_tokens",
        "decay",
        "decay_share",
        "weight_decay",
        "precision",
    )
    values = {name: spec.get(name) for name in asked} | dict(shape) | entry.about("budget", "seed")
    if ok:
        found = (
            "tokens",
            "steps",
            "unique_tokens",
            "trained_tokens",
            "continued_from",
            "loss",
            "bits_per_byte",
            "train_loss",
            "tokens_per_second",
            "peak_bytes",
            "threads",
            "device",
        )
        flops = result.get("flops", {})
        values |= {name: result.get(name) for name in found}
        values |= {"flops_exact": flops.get("exact"), "flops_six_n_d": flops.get("six_n_d")}
    else:
        values |= {"ended_at_step": result.get("step"), "ended_at_loss": result.get("loss")}
        values.setdefault("parameters_without_embeddings", Shape.model_validate(shape).size)
    training = tables.row("trainings", status=entry.status, reason=entry.record.reason, **values)
    yield "trainings", training
    if ok and training["loss"] is not None:
        yield "ladder", _point(training)
    yield from _curve(entry)


def _point(training: dict[str, Any]) -> dict[str, Any]:
    same = ("tokens", "loss", "unique_tokens", "budget", "seed", "model", "run")
    return tables.row(
        "ladder",
        params=training["parameters_without_embeddings"],
        flops=training["flops_exact"],
        **{name: training[name] for name in same},
    )


def _curve(entry: Entry) -> Iterator[Row]:
    path = entry.folder / "curve.csv"
    if not path.exists():
        return
    about = entry.about("budget", "seed")
    kept = {name: value for name, value in about.items() if name in tables.COLUMNS["curves"]}
    with open(path, encoding="utf-8", newline="") as file:
        for line, point in enumerate(csv.DictReader(file), start=2):
            try:
                point["tokens"], point["train_loss"]
                values = {name: _number(point.get(name) or "") for name in _CURVE}
                yield "curves", tables.row("curves", **kept, **values)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path}: line {line} is no point of a loss curve ({error}); "
                    "delete the run's folder to make it again"
                ) from None


_CURVE = ("tokens", "train_loss", "validation_loss", "learning_rate", "seconds")


def _number(text: str) -> float | None:
    value = float(text) if text.strip() else None
    return value if value is not None and abs(value) < float("inf") else None


def _evaluate(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    about = entry.about("budget", "seed")
    for score in result.get("scores", []):
        values = {**about, "suite": entry.labels.get("suite")}
        values |= {name: score.get(name) for name in _SCORE}
        yield "scores", tables.row("scores", **values)
    for failed in result.get("failed", []):
        yield _failure(entry, failed["task"], "failed", failed.get("reason"))
    for sample in result.get("samples", []):
        said = {name: sample.get(name) for name in ("prompt", "text", "decoding")}
        yield "samples", tables.row("samples", **about, **said, sample_seed=sample.get("seed"))


_SCORE = (
    "task",
    "metric",
    "filter",
    "value",
    "standard_error",
    "chance",
    "higher_is_better",
    "items",
    "version",
    "shots",
)


def _probe(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    device = result.get("device") or {}
    about = entry.about() | {"device": device.get("name") or device.get("kind")}
    memory = {name: result.get(name) for name in ("weight_bytes", "baseline_bytes")}
    for cell in result.get("cells", []):
        place = {name: cell.get(name) for name in ("phase", "batch", "context")}
        found = {
            name: cell.get(name)
            for name in (
                "status",
                "reason",
                "peak_bytes",
                "kv_bytes",
                "warmup_repeats",
                "warmup_variation",
                "load",
            )
        }
        yield "memory", tables.row("memory", **about, **place, **memory, **found)
        if cell.get("status", "ok") != "ok":
            what = "{phase}, batch {batch}, context {context}".format(**place)
            yield _failure(entry, what, cell["status"], cell.get("reason"))
        for repeat, seconds in enumerate(cell.get("seconds") or []):
            tokens = cell.get("tokens")
            speed = tokens / seconds if tokens and seconds else None
            values = {"repeat": repeat, "tokens": tokens, "seconds": seconds}
            values |= {"tokens_per_second": speed, "threads": device.get("threads")}
            yield "speeds", tables.row("speeds", **about, **place, **values)


_BY_VERB: dict[str, Callable[[Entry, dict[str, Any]], Iterator[Row]]] = {
    "prepare": _prepare,
    "tasks": _tasks,
    "train": _train,
    "evaluate": _evaluate,
    "probe": _probe,
}

VERBS = tuple(_BY_VERB)
