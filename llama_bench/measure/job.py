"""One measured run from its command line to its record: log, lock, progress, seconds, status.

The steps themselves (prepare, train, ...) are plain functions of a typed spec, a folder and the
inputs' paths; what all of them need around them stands here once.

A process that has imported its libraries and loaded its model may go on to other runs that need
the same. Their records wait under another name, `AHEAD`, for the jobs that snakemake starts for
them: it would delete a record that it did not see made. Its own waits there too until the process
is done, so that an accident of a later run does not cost it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure import gpu
from llama_bench.measure.process import (
    Progress,
    die_with_parent,
    give_threads,
    logged,
    started,
    threads,
)
from llama_bench.measure.training import world
from llama_bench.records import Record, Refusal
from llama_bench.specs import SPECS
from llama_bench.specs.identity import Spec

ON_GPU = (
    "train",
    "finetune",
    "fuse",
    "evaluate",
    "limits",
    "probe",
)  # verbs that use one where there is one
GO_ON = ("evaluate",)  # verbs of which one process may carry out several runs
AHEAD = "ahead.json"  # a finished record whose own job is still to come, or to end
LOCK, AHEAD_LOCK = ".lock", ".ahead"  # of who works on a run; of who does so ahead of its job


class Failure(Exception):
    """An accident: no record is written, the next start tries again. The message is one line."""


def carry_out(
    verb: str,
    spec_text: str,
    output: Path,
    inputs: list[Path],
    others: Iterable[tuple[str, Path, list[Path]]] = (),
) -> None:
    """Run one step and write its record to `output`; then those of `others` that nobody has begun.

    Raises UserError for a wrong spec or input, Failure (log.txt holds the traceback) for an
    accident. A record that exists already is left alone: its question has been answered.
    Of several processes that train together, the one of rank 0 holds the lock and the record.
    """
    spec = SPECS[verb].parse(spec_text)
    others = [(SPECS[verb].parse(text), *rest) for text, *rest in others]
    folder = output.parent
    folder.mkdir(parents=True, exist_ok=True)
    die_with_parent()
    ahead = folder / AHEAD
    with _alone(verb, spec, folder):
        if output.exists():
            return
        if not ahead.exists():
            record = _logged_measure(verb, spec, folder, inputs, started(), bool(others))
            if world.rank() > 0:
                return
            record.write(ahead)
            _go_on(verb, others)
        os.utime(ahead)  # as new as the job that it is from
        os.replace(ahead, output)


def _go_on(verb: str, others: list[tuple[Spec, Path, list[Path]]]) -> None:
    try:
        for other in others:
            _go_ahead(verb, *other)
    finally:
        if others:
            _step(verb).stay(False)


def _go_ahead(verb: str, spec: Spec, output: Path, inputs: list[Path]) -> None:
    """Leave a run's record for its job, unless that has begun, or cannot yet. An accident is told
    by its log, and by that job, which tries again."""
    folder, ahead = output.parent, output.parent / AHEAD
    if not all(path.exists() for path in inputs):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.suppress(UserError, Failure),
        _locked(folder / AHEAD_LOCK),
        _locked(folder / LOCK),
    ):
        if not output.exists() and not ahead.exists():
            Progress(f"{verb} {spec.id}").say("of the same model, in the process that has it")
            _logged_measure(verb, spec, folder, inputs, time.time(), True).write(ahead)


def _logged_measure(verb: str, spec: Spec, folder: Path, inputs: list[Path], *manner) -> Record:
    """Raises UserError, or Failure for whatever nobody foresaw; the log's last line says why."""
    with logged(folder / "log.txt"):
        try:
            return _measure(verb, spec, folder, inputs, *manner)
        except (UserError, Failure) as error:
            print(error, file=sys.stderr, flush=True)
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:
            traceback.print_exc()
            last = str(error).strip().splitlines()
            detail = f"{type(error).__name__}: {last[0] if last else ''}"
            raise Failure(
                f"{verb} {spec.id} failed: {detail} (log: {folder / 'log.txt'})"
            ) from None


def _measure(
    verb: str, spec: Spec, folder: Path, inputs: list[Path], began: float, stays: bool
) -> Record:
    """`began` in seconds since 1970; what `stays` is kept for the next run of this process."""
    status, reason, result = "ok", None, {}
    ready, progress = None, Progress(f"{verb} {spec.id}")
    try:
        _refuse_unfinished(spec, inputs)
        if verb in ON_GPU and getattr(spec, "device", "cuda") == "cuda":
            named = getattr(spec, "device_name", None)
            gpu.claim(progress.say, named, gpu.wanted())
        step = _step(verb)
        if stays:
            step.stay(True)
        give_threads()
        ready = time.time()
        result = step.run(spec, folder, inputs, progress)
        for text in _without_result(result):
            progress.say(text)
    except Refusal as refusal:
        status, reason, result = refusal.status, refusal.reason, refusal.result
        progress.say(f"{status}: {reason}")
    ended = time.time()
    return Record(
        id=spec.id,
        verb=verb,
        status=status,
        reason=reason,
        spec=spec.model_dump(mode="json", exclude_none=True),
        seconds={"startup": (ready or ended) - began, "total": ended - began},
        provenance=records.provenance(threads(), began),
        result=result,
    )


def _without_result(result: dict[str, Any]) -> Iterator[str]:
    """What of a finished run has no number itself: cells of a probe, tasks of a suite."""
    cells = result.get("cells", [])
    told = [(row["status"], row["reason"]) for row in cells if not row["status"].startswith("ok")]
    for (status, reason), count in Counter(told).items():
        yield f"{count} of {len(cells)} cells {status}: {reason}"
    for row in result.get("failed", []):
        yield f"{row['task']} {row['status']}: {row['reason']}"


def _step(verb: str) -> ModuleType:
    return importlib.import_module(f"llama_bench.measure.{verb}")


def _refuse_unfinished(spec: Spec, inputs: list[Path]) -> None:
    """A run that rests on one which gave no result has none either, and says so; of a sweep's
    trainings one result is enough."""
    swept = getattr(spec, "sweep", None) or ()
    for path in inputs:
        if path.name == "record.json" and path.parent.name not in swept:
            record = records.read(path)
            if record.status != "ok":
                reason = f"{record.verb} {record.id} is {record.status}: {record.reason}"
                raise Refusal("skipped", reason)


@contextlib.contextmanager
def _alone(verb: str, spec: Spec, folder: Path) -> Iterator[None]:
    """One process per run: a job that outlived its snakemake must not be doubled. One that goes
    ahead of this is waited for: it leaves the record. Raises Failure."""
    with contextlib.ExitStack() as held:
        if world.rank() == 0:
            say = Progress(f"{verb} {spec.id}").say
            with _locked(folder / AHEAD_LOCK, say) if verb in GO_ON else contextlib.nullcontext():
                held.enter_context(_locked(folder / LOCK))
        yield


@contextlib.contextmanager
def _locked(path: Path, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Raises Failure where another process has the lock; with `say` waits for it instead."""
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if say is None:
                raise Failure(f"{path.parent} is being worked on by another process") from None
            say("waits for the process that is at it already")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
