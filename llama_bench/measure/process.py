"""The process that a job runs in: its log and its terminal, its threads, its start and its end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from llama_bench.measure.training import world


class Progress:
    """A line every few seconds: where the job is and how long it has to go."""

    def __init__(self, title: str, every_seconds: float = 5.0):
        self.title, self.every = title, every_seconds
        self.began = self.last = time.monotonic()
        self.first: tuple[float, float] | None = None  # when work was first told of, and how much

    def __call__(self, done: float, of: float, note: str = "") -> None:
        """`done` of `of` units of work are behind us."""
        now = time.monotonic()
        self.first = self.first or (now, done / of)
        if now - self.last < self.every and done < of:
            return
        self.last = now
        began, before = self.first  # what came before it, such as imports, is no pace
        ahead = done / of - before
        left = (now - began) * (1 - done / of) / ahead if ahead > 0 else None
        eta = f", {left:.0f} s to go" if left else ""
        self.say(f"{done / of:4.0%} {note} ({now - self.began:.0f} s{eta})")

    def say(self, text: str) -> None:
        if world.rank() > 0:
            return
        print(f"[{self.title}] {text}", file=_terminal, flush=True)
        if _terminal is not sys.stderr:
            print(text, file=sys.stderr, flush=True)


_terminal = sys.stderr


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
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


def threads() -> int:
    """What snakemake gave this job, which torch, BLAS and OpenMP read too."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count())


def give_threads() -> None:
    """torch reads OMP_NUM_THREADS itself unless something made up its mind before."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != threads():
        torch.set_num_threads(threads())


def started() -> float:
    """Seconds since the epoch at which this process began, its interpreter's start included."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, AttributeError):
        age = time.process_time()
    return time.time() - age


def die_with_parent() -> None:
    """On Linux, end when the starter ends: a killed snakemake leaves nobody behind.

    (A shell replaces itself by the last command of `bash -c`, so the starter is snakemake.)
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
