"""Energy from the device's own counter: joules since some past moment, read before and after.

NVML counts what a whole GPU board takes, in millijoules since the driver was loaded (Volta and
newer; NVML API reference, nvmlDeviceGetTotalEnergyConsumption). RAPL counts what a processor's
packages take, in microjoules, and begins again at zero when its register is full (Linux kernel,
power capping framework, Documentation/power/powercap). Where there is no counter, or no permission
to read it, energy is None with the reason; power times time would be a guess.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

RAPL = "/sys/class/powercap"


class NoCounter:
    """There is none; `missing` says why."""

    source = None

    def __init__(self, missing: str):
        self.missing = missing

    def joules(self) -> None:
        return None


class NvmlCounter:
    """Of the whole board. It is renewed some ten times a second: repeats of milliseconds read
    zero or a step, only their sum means something."""

    source, missing = "nvml", None

    def __init__(self, nvml: Any, handle: Any):
        self._nvml, self._handle = nvml, handle

    def joules(self) -> float:
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000


class RaplCounter:
    """The sum over the processor's packages, all programs together, freed of its wrap-around: it
    has to be read at least once a round, which takes minutes."""

    source, missing = "rapl", None

    def __init__(self, zones: list[Path]):
        self._zones = zones
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last = self._read()
        self._total = 0

    def joules(self) -> float:
        now = self._read()
        for before, after, whole in zip(self._last, now, self._ranges, strict=True):
            self._total += after - before + (whole if after < before else 0)
        self._last = now
        return self._total / 1e6

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]


Counter = NoCounter | NvmlCounter | RaplCounter


def of_gpu(nvml: Any, handle: Any) -> Counter:
    if nvml is None:
        return NoCounter("NVML is not at hand: pip install nvidia-ml-py")
    counter = NvmlCounter(nvml, handle)
    try:
        counter.joules()
    except nvml.NVMLError as error:
        return NoCounter(f"this GPU has no energy counter that can be read ({error})")
    return counter


def of_host(folder: Path) -> Counter:
    """The packages' zones under `folder`: core, uncore and psys count the same joules again."""
    zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _name(zone).startswith("pack")]
    if not zones:
        return NoCounter(f"this machine shows no energy counter (RAPL) in {folder}")
    try:
        return RaplCounter(zones)
    except PermissionError as error:
        return NoCounter(
            f"{error.filename} may not be read: give read permission on it to count energy"
        )
    except (OSError, ValueError) as error:
        return NoCounter(f"RAPL cannot be read: {error}")


def _name(zone: Path) -> str:
    with contextlib.suppress(OSError):
        return (zone / "name").read_text().strip()
    return ""
