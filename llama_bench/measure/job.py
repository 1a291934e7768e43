"""One measured run from its command line to its record: log, lock, progress, seconds, status.

The steps themselves (prepare, train, ...) are plain functions of a typed spec, a folder and the
inputs' paths; what all of them need around them stands here once.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure import gpu
from llama_bench.measure.training import world
from llama_bench.records import Record, Refusal
from llama_bench.specs import SPECS

ON_GPU = (
    "train",
    "finetune",
    "fuse",
    "evaluate",
    "limits",
    "probe",
)  # verbs that use one where there is one


class Failure(Exception):
    """An accident: no record is written, the next start tries again. The message is one line."""


class Progress:
    """A line every few seconds: where the job is and how long it has to go."""

    def __init__(self, title: str, every_seconds: float = 5.0):
        self.title, self.every = title, every_seconds
        self.began = self.last = time.monotonic()

    def __call__(self, done: float, of: float, note: str = "") -> None:
        """`done` of `of` units of work are behind us."""
        now = time.monotonic()
        if now - self.last < self.every and done < of:
            return
        self.last = now
        spent = now - self.began
        left = spent * (of - done) / done if done else None
        eta = f", {left:.0f} s to go" if left else ""
        self.say(f"{done / of:4.0%} {note} ({spent:.0f} s{eta})")

    def say(self, text: str) -> None:
        if world.rank() > 0:
            return
        print(f"[{self.title}] {text}", file=_terminal, flush=True)
        if _terminal is not sys.stderr:
            print(text, file=sys.stderr, flush=True)


_terminal = sys.stderr


def carry_out(verb: str, spec_text: str, output: Path, inputs: list[Path]) -> None:
    """Run one step and write its record to `output`.

    Raises UserError for a wrong spec or input, Failure (log.txt holds the traceback) for an
    accident. A record that exists already is left alone: its question has been answered.
    Of several processes that train together, the one of rank 0 holds the lock and the record.
    """
    spec = SPECS[verb].parse(spec_text)
    folder = output.parent
    folder.mkdir(parents=True, exist_ok=True)
    _die_with_parent()
    lock = _locked(folder) if world.rank() == 0 else contextlib.nullcontext()
    with lock, _logged(folder / "log.txt"):
        if output.exists():
            return
        try:
            record = _measure(verb, spec, folder, inputs)
        except (UserError, Failure) as error:
            print(error, file=sys.stderr, flush=True)  # the log's last line says why it ended
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
        if world.rank() == 0:
            record.write(output)


def _measure(verb: str, spec, folder: Path, inputs: list[Path]) -> Record:
    began = _process_start()
    status, reason, result = "ok", None, {}
    ready = None
    try:
        _refuse_unfinished(spec, inputs)
        if verb in ON_GPU and getattr(spec, "device", "cuda") == "cuda":
            named = getattr(spec, "device_name", None)
            gpu.claim(Progress(f"{verb} {spec.id}").say, named, gpu.wanted())
        step = importlib.import_module(f"llama_bench.measure.{verb}")
        _give_threads()
        ready = time.time()
        result = step.run(spec, folder, inputs, Progress(f"{verb} {spec.id}"))
    except Refusal as refusal:
        status, reason, result = refusal.status, refusal.reason, refusal.result
        print(f"{status}: {reason}", file=sys.stderr)
        print(f"[{verb} {spec.id}] {status}: {reason}", file=_terminal, flush=True)
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


def threads() -> int:
    """What snakemake gave this job, which torch, BLAS and OpenMP read too."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count())


def _give_threads() -> None:
    """torch reads OMP_NUM_THREADS itself unless something made up its mind before."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != threads():
        torch.set_num_threads(threads())


def _refuse_unfinished(spec, inputs: list[Path]) -> None:
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
def _locked(folder: Path):
    """One process per run: a job that outlived its snakemake must not be doubled."""
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Failure(f"{folder} is being worked on by another process") from None
        yield


@contextlib.contextmanager
def _logged(path: Path):
    """All that is printed goes to the log, also by compiled libraries; progress to the terminal."""
    global _terminal
    terminal, out = os.dup(2), os.dup(1)
    sys.stdout.flush()
    with open(path, "a", encoding="utf-8") as log, os.fdopen(terminal, "w") as shown:
        _terminal = shown
        print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {sys.argv[1:]}", file=log, flush=True)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out, 1)
            os.dup2(terminal, 2)
            os.close(out)
            _terminal = sys.stderr


def _process_start() -> float:
    """Seconds since the epoch at which this process began, its interpreter's start included."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, AttributeError):
        age = time.process_time()
    return time.time() - age


def _die_with_parent() -> None:
    """On Linux, end when the starter ends: a killed snakemake leaves nobody behind.

    (A shell replaces itself by the last command of `bash -c`, so the starter is snakemake.)
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
