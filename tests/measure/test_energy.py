"""Energy comes from a counter, freed of its wrap-around, or is missing with the reason."""

import errno
import os
from pathlib import Path

import pytest

from llama_bench.measure.probing import energy
from llama_bench.measure.probing.instruments import HostInstruments


@pytest.fixture
def counters(tmp_path):
    """A processor of two packages, as Linux shows them: text files of microjoules."""
    for zone, name in (("0", "package-0"), ("1", "package-1"), ("0:0", "core"), ("2", "psys")):
        folder = tmp_path / f"intel-rapl:{zone}"
        folder.mkdir()
        (folder / "name").write_text(name + "\n")
        (folder / "energy_uj").write_text("1000000\n")
        (folder / "max_energy_range_uj").write_text("10000000\n")
    return tmp_path


def count(folder, zone: str, microjoules: int) -> None:
    (folder / f"intel-rapl:{zone}" / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_are_summed_and_parts_of_them_not(counters):
    counter = energy.of_host(counters)
    assert counter.source == "rapl"
    before = counter.joules()
    count(counters, "0", 3_500_000)
    count(counters, "1", 1_250_000)
    count(counters, "0:0", 9_000_000)
    count(counters, "2", 9_000_000)
    assert counter.joules() - before == 2.75


def test_a_full_register_begins_again_at_zero(counters):
    counter = energy.of_host(counters)
    before = counter.joules()
    count(counters, "0", 9_000_000)
    assert counter.joules() - before == 8
    count(counters, "0", 500_000)  # 1 J to the end of its range, and half a joule
    assert counter.joules() - before == 9.5


def test_no_counter_is_missing_and_says_so(tmp_path):
    counter = energy.of_host(tmp_path)
    assert counter.joules() is None
    assert counter.source is None
    assert "no energy counter" in counter.missing


def test_a_counter_that_cannot_be_read_says_so(counters):
    (counters / "intel-rapl:0" / "energy_uj").write_text("")
    counter = energy.of_host(counters)
    assert counter.joules() is None
    assert "cannot be read" in counter.missing


def test_a_counter_without_permission_says_which(counters, monkeypatch):
    """As the kernel answers all but root, who runs these tests here and there."""
    read = Path.read_text

    def refuse(path: Path, *given, **named) -> str:
        if path.name == "energy_uj":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path, *given, **named)

    monkeypatch.setattr(Path, "read_text", refuse)
    counter = energy.of_host(counters)
    assert counter.joules() is None
    assert "intel-rapl:0/energy_uj may not be read" in counter.missing


def test_the_clock_is_the_mean_of_the_cores_that_tell(tmp_path):
    for core, kilohertz in enumerate((2_000_000, 3_000_000)):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{kilohertz}\n")
    found = HostInstruments(clocks=tmp_path, counters=tmp_path)
    assert found.read()["clock_hertz"] == 2.5e9
    assert found.facts()["clock_hertz"] is None
    assert found.processes() is None
