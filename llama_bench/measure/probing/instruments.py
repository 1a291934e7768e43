"""The device's own instruments: clock, temperature, power, and what else runs on it.

An NVIDIA GPU tells through NVML (nvidia-ml-py, if it is installed); a Linux system tells the
processor's clock and temperature in /sys, where drivers allow. Nothing here is estimated: what an
instrument does not say, or what there is no instrument for, is None. Reading them takes up to some
milliseconds, so it is done between what is timed.
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from llama_bench.measure.probing import energy

_CLOCKS = "/sys/devices/system/cpu"
# drivers whose sensors are a processor's: Intel's, AMD's, those of boards with one chip
_PROCESSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal")
_SENSORS = getattr(psutil, "sensors_temperatures", dict)  # not on every system
_SM, _MEMORY, _CHIP = 1, 2, 0  # NVML's numbers for clocks and for the sensor of temperature


class HostInstruments:
    """A CPU: the mean clock of its cores, the hottest of its sensors, and RAPL's energy counters.
    It has no own processes to count; the load of others is timing's to see."""

    def __init__(
        self,
        clocks: Path = Path(_CLOCKS),
        counters: Path = Path(energy.RAPL),
        sensors: Callable[[], dict[str, list]] = _SENSORS,
    ):
        self._clocks = sorted(clocks.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._highest = sorted(clocks.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq"))
        self._sensors = sensors if _hottest(sensors()) is not None else dict
        self.energy = energy.of_host(counters)

    def facts(self) -> dict[str, Any]:
        highest = _mean_kilohertz(self._highest)
        limit = {"driver": None, "power_limit_watts": None}
        return {**limit, "clock_hertz": highest, "memory_clock_hertz": None}

    def read(self) -> dict[str, float | None]:
        return {
            "clock_hertz": _mean_kilohertz(self._clocks),
            "temperature_celsius": _hottest(self._sensors()),
            "power_watts": None,
        }

    def processes(self) -> set[int] | None:
        return None


def _mean_kilohertz(paths: list[Path]) -> float | None:
    """In hertz, of the files that can be read."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            found.append(1000.0 * int(path.read_text()))
    return statistics.mean(found) if found else None


def _hottest(sensors: dict[str, list]) -> float | None:
    """Of a processor's own, in degrees Celsius; other sensors are of boards and disks."""
    found = [each.current for name in _PROCESSORS for each in sensors.get(name, ())]
    return max(found, default=None)


class GpuInstruments:
    """An NVIDIA GPU, through NVML; without nvidia-ml-py, or inside a MIG slice, all are None."""

    def __init__(self, device: torch.device):
        self._nvml, self._handle = _nvml(device)
        self.energy = energy.of_gpu(self._nvml, self._handle)

    def facts(self) -> dict[str, Any]:
        return {
            "driver": self._ask("nvmlSystemGetDriverVersion", of_device=False),
            "power_limit_watts": _scaled(self._ask("nvmlDeviceGetEnforcedPowerLimit"), 1e-3),
            "clock_hertz": _scaled(self._ask("nvmlDeviceGetMaxClockInfo", _SM), 1e6),
            "memory_clock_hertz": _scaled(self._ask("nvmlDeviceGetMaxClockInfo", _MEMORY), 1e6),
        }

    def read(self) -> dict[str, float | None]:
        return {
            "clock_hertz": _scaled(self._ask("nvmlDeviceGetClockInfo", _SM), 1e6),
            "temperature_celsius": _scaled(self._ask("nvmlDeviceGetTemperature", _CHIP), 1.0),
            "power_watts": _scaled(self._ask("nvmlDeviceGetPowerUsage"), 1e-3),
        }

    def processes(self) -> set[int] | None:
        """Ids of the processes that hold a context on this GPU, as far as NVML shows them."""
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        return None if found is None else {process.pid for process in found}

    def _ask(self, name: str, *given, of_device: bool = True) -> Any:
        """What an NVML function says; None where it is not supported or not permitted."""
        if self._nvml is None:
            return None
        try:
            return getattr(self._nvml, name)(*((self._handle,) if of_device else ()), *given)
        except self._nvml.NVMLError:
            return None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _nvml(device: torch.device) -> tuple[Any, Any]:
    """The library and its handle of torch's device, found by what identifies the card itself:
    CUDA_VISIBLE_DEVICES gives torch other numbers than NVML's."""
    try:
        import pynvml
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        return None, None


def of(device: torch.device) -> HostInstruments | GpuInstruments:
    return GpuInstruments(device) if device.type == "cuda" else HostInstruments()


class Neighbours:
    """Other processes on the same GPU. Made before this process touches it, for ids may be those
    of the host, so that a process in a container does not know its own: what comes up until
    `ready` is its own, a server's workers included."""

    def __init__(self):
        self._before = _on_any_gpu()
        self._own = {os.getpid()}

    def ready(self, instruments: HostInstruments | GpuInstruments) -> None:
        self._own |= (instruments.processes() or set()) - self._before

    def count(self, instruments: HostInstruments | GpuInstruments) -> int | None:
        """None where the device does not say."""
        now = instruments.processes()
        return None if now is None else len(now - self._own)


def _on_any_gpu() -> set[int]:
    try:
        import pynvml
    except ImportError:
        return set()
    found: set[int] = set()
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            found |= {each.pid for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    return found
