"""What a device tells of itself, in the units of the record; and who else is on it.

No GPU is needed: a module that answers as nvidia-ml-py does, in NVML's units, stands in for it.
"""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from llama_bench.measure.probing import energy, instruments

GPU = torch.device("cuda", 0)
UUID = "11111111-2222-3333-4444-555555555555"


class NVMLError(Exception):
    pass


class Nvml(ModuleType):
    """One card. `lacks` names the functions that it does not support."""

    NVMLError = NVMLError

    def __init__(self):
        super().__init__("pynvml")
        self.lacks: set[str] = set()
        self.pids = [os.getpid(), 71]
        self.millijoules = 5_000

    def __getattribute__(self, name):
        if name.startswith("nvml") and name in self.lacks:
            raise NVMLError(f"{name}: Not Supported")
        return super().__getattribute__(name)

    def nvmlInit(self):
        pass

    def nvmlDeviceGetCount(self):
        return 1

    def nvmlDeviceGetHandleByIndex(self, number):
        return "card"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != f"GPU-{UUID}":
            raise NVMLError("Not Found")
        return "card"

    def nvmlSystemGetDriverVersion(self):
        return "550.1"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return 700_000

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return {1: 1755}[kind]

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return {0: 41}[sensor]

    def nvmlDeviceGetPowerUsage(self, handle):
        return 123_400

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid) for pid in self.pids]


@pytest.fixture
def nvml(monkeypatch):
    found = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    properties = SimpleNamespace(uuid=UUID)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return found


def test_a_gpus_readings_are_in_hertz_watts_and_joules(nvml):
    gpu = instruments.of(GPU)
    assert gpu.facts() == {
        "driver": "550.1",
        "power_limit_watts": 700,
        "clock_hertz": 1.98e9,
        "memory_clock_hertz": 2.619e9,
    }
    read = {"clock_hertz": 1.755e9, "temperature_celsius": 41, "power_watts": 123.4}
    assert gpu.read() == pytest.approx(read)
    assert (gpu.energy.source, gpu.energy.missing) == ("nvml", None)
    before = gpu.energy.joules()
    nvml.millijoules += 2_500
    assert gpu.energy.joules() - before == 2.5


def test_what_a_gpu_does_not_support_is_none(nvml):
    nvml.lacks = {
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetComputeRunningProcesses",
    }
    gpu = instruments.of(GPU)
    assert gpu.read()["power_watts"] is None
    assert gpu.read()["temperature_celsius"] == 41
    assert gpu.processes() is None
    assert gpu.energy.joules() is gpu.energy.source is None
    assert "no energy counter that can be read (nvmlDeviceGetTotal" in gpu.energy.missing


@pytest.mark.parametrize("lack", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_a_card_that_nvml_does_not_find_tells_nothing(nvml, lack):
    nvml.lacks = {lack}
    gpu = instruments.of(GPU)
    assert set(gpu.facts().values()) == set(gpu.read().values()) == {None}
    assert gpu.processes() is None
    assert isinstance(gpu.energy, energy.NoCounter)


def test_without_nvidia_ml_py_energy_says_what_to_install(nvml, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # so that importing it fails
    gpu = instruments.of(GPU)
    assert gpu.energy.joules() is None
    assert "pip install nvidia-ml-py" in gpu.energy.missing
    assert instruments.Neighbours().count(gpu) is None


def test_neighbours_are_those_before_and_after_the_probes_own(nvml):
    neighbours = instruments.Neighbours()
    gpu = instruments.of(GPU)
    nvml.pids += [900]  # what the probe itself is called on the host
    neighbours.ready(gpu)
    assert neighbours.count(gpu) == 1, "71 was there before"
    nvml.pids += [901]
    assert neighbours.count(gpu) == 2
    nvml.pids = [os.getpid(), 900]
    assert neighbours.count(gpu) == 0


def sensors(**chips: list[float]):
    return lambda: {
        name: [SimpleNamespace(label="", current=degrees) for degrees in found]
        for name, found in chips.items()
    }


@pytest.mark.parametrize(
    ("found", "celsius"),
    [
        (sensors(coretemp=[51.0, 58.5, 49.0], nvme=[70.0]), 58.5),
        (sensors(k10temp=[44.25]), 44.25),
        (sensors(nvme=[70.0], acpitz=[27.8]), None),
        (dict, None),
    ],
)
def test_a_cpus_temperature_is_the_hottest_of_its_own_sensors(tmp_path, found, celsius):
    host = instruments.HostInstruments(clocks=tmp_path, counters=tmp_path, sensors=found)
    assert host.read()["temperature_celsius"] == celsius
