"""How long a piece of work takes: warmed up, repeated, every repeat kept.

A first run is slower than the rest (pages are touched, kernels chosen, clocks raised), so work is
repeated until its time is steady before any is kept. A GPU works behind the program's back:
events in its own stream time it, and a CPU has a monotonic clock. Neither knows whose work kept
the processor busy; so what other processes took of it is written down beside the times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import psutil
import torch

WINDOW = 5  # repeats that warm-up looks back on
STEADY = 0.03  # their standard deviation over their mean, below which times are steady


class Work(Protocol):
    """Something to time: `prepare` comes before each repeat and is not timed."""

    def prepare(self) -> None: ...

    def work(self) -> None: ...


def measure(work: Work, device: torch.device, repeats: int, seconds: float) -> dict[str, Any]:
    """`seconds` of each repeat: at least `repeats` of them, and as many as last `seconds`.

    Warm-up before that ends when times are steady, or at the latest when it has lasted half of
    `seconds` (and two repeats). `warmup_variation` is the coefficient of variation that it ended
    with, None where it had not a window's worth of repeats.
    """
    once = _on_gpu if device.type == "cuda" else _on_cpu
    cap = warmup_cap(seconds)

    def warmed(done: list[float]) -> bool:
        return _variation(done) < STEADY or (len(done) >= 2 and sum(done) >= cap)

    def enough(done: list[float]) -> bool:
        return len(done) >= repeats and sum(done) >= seconds

    warm = _repeat(work, once, warmed)
    others = Others()
    kept = _repeat(work, once, enough)
    variation = _variation(warm)
    return {
        "seconds": kept,
        "warmup_repeats": len(warm),
        "warmup_variation": variation if len(warm) >= WINDOW else None,
        "load": others.load(),
    }


def warmup_cap(seconds: float) -> float:
    """Seconds after which warm-up ends even if times are not steady, as on a shared machine."""
    return seconds / 2


def _repeat(work: Work, once: Callable, enough: Callable[[list[float]], bool]) -> list[float]:
    done: list[float] = []
    while not enough(done):
        work.prepare()
        done.append(once(work.work))
    return done


def _on_cpu(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _on_gpu(call: Callable[[], None]) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    began.record()
    call()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1000  # milliseconds


def _variation(times: list[float]) -> float:
    """Coefficient of variation of the last window; infinite while there is none."""
    if len(times) < WINDOW:
        return float("inf")
    window = times[-WINDOW:]
    return statistics.stdev(window) / statistics.mean(window)


class Others:
    """Processor time that this process did not take, from construction on."""

    def __init__(self):
        self._began = self._now()

    def load(self) -> float | None:
        """Cores that others kept busy, on average; None after no time at all.

        Counted over the whole machine, other containers and the hypervisor's `steal` included,
        in steps of the kernel's clock (10 ms).
        """
        now = self._now()
        wall, busy, own = (after - before for after, before in zip(now, self._began, strict=True))
        return max(0.0, (busy - own) / wall) if wall > 0 else None

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds: of the wall clock, of all processors busy, of this process."""
        times = psutil.cpu_times()._asdict()
        idle = ("idle", "iowait", "guest", "guest_nice")  # guests are in user already
        busy = sum(seconds for kind, seconds in times.items() if kind not in idle)
        return time.monotonic(), busy, time.process_time()
