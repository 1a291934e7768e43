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
    said = {"what": what, "status": status, "reason": reason, "log": entry.log}
    model = entry.labels.get("model")
    return "failures", tables.row("failures", run=entry.id, verb=entry.verb, model=model, **said)


def _prepare(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    counted = ("documents", "bytes", "tokens")
    whole = tables.picked("data", result, but=counted)
    whole |= {"run": entry.id, "corpus": entry.record.spec.get("corpus", {}).get("source")}
    for part in result.get("documents", {}):
        counts = {name: result.get(name, {}).get(part) for name in counted}
        yield "data", tables.row("data", part=part, **counts, **whole)


def _tasks(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    for task, facts in result.get("tasks", {}).items():
        values = tables.picked("tasks", facts) | {"run": entry.id, "task": task}
        yield "tasks", tables.row("tasks", **values)
    for task, reason in result.get("left_out", {}).items():
        yield "tasks", tables.row("tasks", run=entry.id, task=task, left_out=reason)
        yield _failure(entry, task, "left out", reason)


def _train(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    spec, ok = entry.record.spec, entry.status == "ok"
    shape = spec.get("model", {})
    # of the spec neither the tokens asked for (the result has those trained on) nor the shape
    values = tables.picked("trainings", spec, but=("model", "tokens"))
    values |= tables.picked("trainings", shape) | entry.about("budget", "seed")
    values |= {"status": entry.status, "reason": entry.record.reason}
    if ok:
        flops = result.get("flops", {})
        values |= tables.picked("trainings", result)
        values |= {"flops_exact": flops.get("exact"), "flops_six_n_d": flops.get("six_n_d")}
    else:
        values |= {"ended_at_step": result.get("step"), "ended_at_loss": result.get("loss")}
        values.setdefault("parameters_without_embeddings", Shape.model_validate(shape).size)
    training = tables.row("trainings", **values)
    yield "trainings", training
    if ok and training["loss"] is not None:
        yield "ladder", _point(training)
    yield from _curve(entry)


def _point(training: dict[str, Any]) -> dict[str, Any]:
    return tables.row(
        "ladder",
        params=training["parameters_without_embeddings"],
        flops=training["flops_exact"],
        token_budget=training["budget"],
        params_all=training["parameters_all"],
        params_in_matrix_products=training["parameters_in_matrix_products"],
        **tables.picked("ladder", training),
    )


def _curve(entry: Entry) -> Iterator[Row]:
    path = entry.folder / "curve.csv"
    if not path.exists():
        return
    about = tables.picked("curves", entry.about("budget", "seed"))
    with open(path, encoding="utf-8", newline="") as file:
        for line, point in enumerate(csv.DictReader(file), start=2):
            try:
                found = {name: _number(text) for name, text in point.items()}
                if found["tokens"] is None:
                    raise ValueError("tokens are missing")
                yield "curves", tables.row("curves", **tables.picked("curves", found), **about)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path}: line {line} is no point of a loss curve ({error}); "
                    "delete the run's folder to make it again"
                ) from None


def _number(text: str) -> float | None:
    value = float(text) if text.strip() else None
    return value if value is not None and abs(value) < float("inf") else None


def _evaluate(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    about = entry.about("budget", "seed")
    for score in result.get("scores", []):
        values = tables.picked("scores", score) | about
        yield "scores", tables.row("scores", suite=entry.labels.get("suite"), **values)
    for failed in result.get("failed", []):
        yield _failure(entry, failed["task"], "failed", failed.get("reason"))
    for sample in result.get("samples", []):
        # a sample's own seed is that of its drawing; `seed` is the training's
        values = tables.picked("samples", sample) | about
        yield "samples", tables.row("samples", sample_seed=sample.get("seed"), **values)


def _busy(load: float | None, cores: int | None, threads: int | None) -> bool | None:
    """Whether other programs took cores that the probe was using: more than a quarter of one."""
    if load is None or cores is None or threads is None:
        return None
    return load > max(0, cores - threads) + 0.25


def _probe(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    device = result.get("device") or {}
    about = entry.about() | {"device": device.get("name") or device.get("kind")}
    weights = {name: result.get(name) for name in ("weight_bytes", "baseline_bytes")}
    cores = entry.record.provenance.get("machine", {}).get("cores")
    for cell in result.get("cells", []):
        busy = _busy(cell.get("load"), cores, device.get("threads"))
        yield "memory", tables.row("memory", **tables.picked("memory", cell), **weights, **about)
        if cell.get("status", "ok") != "ok":
            what = "{phase}, batch {batch}, context {context}".format(**cell)
            yield _failure(entry, what, cell["status"], cell.get("reason"))
        place = {name: cell[name] for name in ("phase", "batch", "context", "tokens")}
        for repeat, seconds in enumerate(cell.get("seconds") or []):
            speed = cell["tokens"] / seconds if cell["tokens"] and seconds else None
            values = {"repeat": repeat, "seconds": seconds, "tokens_per_second": speed}
            values |= {"threads": device.get("threads"), "busy": busy, **place, **about}
            yield "speeds", tables.row("speeds", **values)


_BY_VERB: dict[str, Callable[[Entry, dict[str, Any]], Iterator[Row]]] = {
    "prepare": _prepare,
    "tasks": _tasks,
    "train": _train,
    "evaluate": _evaluate,
    "probe": _probe,
}

VERBS = tuple(_BY_VERB)
