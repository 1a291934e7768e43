"""How long a piece of work takes: warmed up, repeated, every repeat kept.

A first run is slower than the rest (pages are touched, kernels chosen, clocks raised), so work is
repeated until its time is steady before any is kept. What else a machine does comes and goes in
seconds, so the repeats that are kept come in rounds, spread over the life of the probe. A GPU works
behind the program's back: events in its own stream time it, and a CPU has a monotonic clock.
Neither knows in what state the device was, or whose work kept it busy; so its clock, temperature,
power and energy, and what other processes took of the processor, are written down beside the times.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import psutil
import torch

from llama_bench.measure.probing.instruments import GpuInstruments, HostInstruments

WINDOW = 5  # repeats that warm-up looks back on
STEADY = 0.03  # their standard deviation over their mean, below which times are steady
ROUNDS = 6  # of kept repeats: the range of so many medians holds the true one in 31 of 32 cases
BUSY_CORES = 0.25  # that others may take of the probe's share before it counts as disturbed
TELLING_SECONDS = 0.1  # ten ticks of the kernel's clock, by which it counts processor time
READINGS = ("clock_hertz", "temperature_celsius", "power_watts")
PER_REPEAT = ("processor_seconds", "joules", *READINGS)


class Work(Protocol):
    """Something to time: `prepare` comes before each repeat and is not timed. Work that runs in
    another process has a method `timed` as well, which does it and says how long it took."""

    def prepare(self) -> None: ...

    def work(self) -> None: ...


class Kept:
    """The repeats of one piece of work, round by round, and what was read beside them.

    Repeats that follow each other are alike, because whatever disturbs them lasts longer than they
    do; so they are kept in rounds, between which other work is done where there is any, and how far
    the rounds lie apart says more of the next probe than how far single repeats do.
    """

    def __init__(
        self,
        device: torch.device,
        instruments: HostInstruments | GpuInstruments,
        neighbours: Callable[[], int | None] = lambda: None,
    ):
        self._device, self._instruments = device, instruments
        self._neighbours = neighbours
        self.other_processes: int | None = None  # the most that were there after a round
        self._warm: list[float] = []
        self._rounds: list[list[float]] = []
        self._readings: list[dict[str, Any]] = []
        self._others: Others | None = Others()

    def warm_up(self, work: Work, seconds: float) -> None:
        """Until times are steady, or at the latest when it has lasted half of `seconds` (and two
        repeats)."""
        warm, cap = self._warm, warmup_cap(seconds)
        while not (_variation(warm) < STEADY or (len(warm) >= 2 and sum(warm) >= cap)):
            warm.append(once(work, self._device))

    def keep(self, work: Work, repeats: int, seconds: float) -> None:
        """One round: at least `repeats` of them, and as many as last `seconds`."""
        if is_elsewhere(work):
            self._others = None  # its own processes are no others
        kept: list[float] = []
        with self._others or contextlib.nullcontext():
            while len(kept) < repeats or sum(kept) < seconds:
                work.prepare()
                reading, elapsed = _read(work, self._device, self._instruments)
                kept.append(elapsed)
                self._readings.append(reading)
        self._rounds.append(kept)
        seen = self._neighbours()
        if seen is not None:
            self.other_processes = max(seen, self.other_processes or 0)

    def found(self) -> dict[str, Any]:
        """`warmup_variation` is the coefficient of variation that the warm-up ended with, None
        where it had not a window's worth of repeats. The device's readings are lists beside
        `seconds`, None where the device does not tell."""
        return {
            "seconds": [elapsed for kept in self._rounds for elapsed in kept],
            "round_repeats": [len(kept) for kept in self._rounds],
            "warmup_repeats": len(self._warm),
            "warmup_variation": _variation(self._warm) if len(self._warm) >= WINDOW else None,
            "load": self._others and self._others.load(),
            **{name: _told([reading[name] for reading in self._readings]) for name in PER_REPEAT},
        }


def measure(
    work: Work,
    device: torch.device,
    instruments: HostInstruments | GpuInstruments,
    repeats: int,
    seconds: float,
    warmup: bool = True,
) -> dict[str, Any]:
    """Of work that is timed in one go: warmed up, then one round."""
    kept = Kept(device, instruments)
    if warmup:
        kept.warm_up(work, seconds)
    kept.keep(work, repeats, seconds)
    return kept.found()


def rounds(repeats: int, seconds: float) -> list[tuple[int, float]]:
    """(repeats, seconds) of each round, so that all of them together are enough."""
    count = max(1, min(ROUNDS, repeats))
    return [(-(-repeats // count), seconds / count)] * count


def _read(work: Work, device: torch.device, instruments) -> tuple[dict[str, Any], float]:
    """One repeat: what was read around it, and its seconds. The processor time of a CPU's work
    leaves out what it waited for others; a GPU's says nothing of the work."""
    spent, joules = time.process_time(), instruments.energy.joules()
    elapsed = _timed(work, device)
    after = instruments.energy.joules()
    spent = time.process_time() - spent
    told = device.type == "cpu" and not is_elsewhere(work)
    return {
        "processor_seconds": spent if told else None,
        "joules": None if joules is None else after - joules,
        **instruments.read(),
    }, elapsed


def is_elsewhere(work: Work) -> bool:
    """Whether another process does it, of which this one sees the time alone."""
    return hasattr(work, "timed")


def once(work: Work, device: torch.device) -> float:
    """Seconds of one repeat, prepared."""
    work.prepare()
    return _timed(work, device)


def warmup_cap(seconds: float) -> float:
    """Seconds after which warm-up ends even if times are not steady, as on a shared machine."""
    return seconds / 2


def busy(load: float | None, neighbours: int | None, cores: int, threads: int) -> bool | None:
    """Whether others took of what the probe was using: cores beyond those that it left free, or
    the GPU. None where neither is known."""
    signs = [] if load is None else [load > max(0, cores - threads) + BUSY_CORES]
    signs += [] if neighbours is None else [neighbours > 0]
    return any(signs) if signs else None


def _timed(work: Work, device: torch.device) -> float:
    if is_elsewhere(work):
        return work.timed()
    return (_on_gpu if device.type == "cuda" else _on_cpu)(work.work)


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


def _told(values: list[float | None]) -> list[float | None] | None:
    return None if all(value is None for value in values) else values


def _variation(times: list[float]) -> float:
    """Coefficient of variation of the last window; infinite while there is none."""
    if len(times) < WINDOW:
        return float("inf")
    window = times[-WINDOW:]
    return statistics.stdev(window) / statistics.mean(window)


class Others:
    """Processor time that this process did not take, while entered."""

    def __init__(self):
        self._spent = (0.0, 0.0, 0.0)

    def __enter__(self) -> Others:
        self._began = self._now()
        return self

    def __exit__(self, *_) -> None:
        passed = zip(self._spent, self._now(), self._began, strict=True)
        self._spent = tuple(before + now - began for before, now, began in passed)

    def load(self) -> float | None:
        """Cores that others kept busy, on average; None of less than TELLING_SECONDS.

        Counted over the whole machine, other containers and the hypervisor's `steal` included,
        in steps of the kernel's clock (10 ms).
        """
        wall, busy, own = self._spent
        return max(0.0, (busy - own) / wall) if wall >= TELLING_SECONDS else None

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds: of the wall clock, of all processors busy, of this process."""
        times = psutil.cpu_times()._asdict()
        idle = ("idle", "iowait", "guest", "guest_nice")  # guests are in user already
        busy = sum(seconds for kind, seconds in times.items() if kind not in idle)
        return time.monotonic(), busy, time.process_time()
