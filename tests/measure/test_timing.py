"""Repeats: enough of them, for long enough, all kept; and what others did meanwhile."""

import subprocess
import sys
import time

import psutil
import pytest
import torch

from llama_bench.measure.probing import instruments, timing

CPU = torch.device("cpu")
HERE = instruments.of(CPU)


class Product:
    """Real work of about a millisecond, which notes in what order it is asked."""

    def __init__(self):
        self.calls = ""
        self.matrix = torch.ones(200, 200)

    def prepare(self):
        self.calls += "p"

    def work(self):
        self.calls += "w"
        self.matrix @ self.matrix


@pytest.mark.parametrize(("repeats", "seconds"), [(3, 0.05), (40, 0.0)])
def test_repeats_and_seconds_are_minima(repeats, seconds):
    work = Product()
    timed = timing.measure(work, CPU, HERE, repeats, seconds)
    assert len(timed["seconds"]) >= repeats
    assert sum(timed["seconds"]) >= seconds
    assert min(timed["seconds"]) > 0
    one_less = timed["seconds"][:-1]
    assert len(one_less) < repeats or sum(one_less) < seconds, "stopped later than asked"
    assert timed["warmup_repeats"] >= 2
    assert work.calls == "pw" * (timed["warmup_repeats"] + len(timed["seconds"]))


def test_rounds_are_kept_in_order_and_enough_together():
    work, kept = Product(), timing.Kept(CPU, HERE)
    asked = timing.rounds(10, 0.05)
    assert len(asked) == timing.ROUNDS
    kept.warm_up(work, 0.05)
    warm = len(work.calls) // 2
    counts = []
    for repeats, seconds in asked:
        before = len(work.calls)
        kept.keep(work, repeats, seconds)
        counts.append((len(work.calls) - before) // 2)
    found = kept.found()
    assert found["round_repeats"] == counts
    assert len(found["seconds"]) == len(found["processor_seconds"]) == sum(counts) >= 10
    assert sum(found["seconds"]) >= 0.05
    assert found["warmup_repeats"] == warm


@pytest.mark.parametrize("repeats", [1, 2, 5, 6, 7, 10, 100])
def test_there_are_no_more_rounds_than_repeats(repeats):
    asked = timing.rounds(repeats, 3.0)
    assert len(asked) == min(repeats, timing.ROUNDS)
    assert repeats <= sum(count for count, _ in asked) < repeats + len(asked)
    assert sum(seconds for _, seconds in asked) == pytest.approx(3.0)


class Scripted(Product):
    """Work whose times are known in advance: those given, then the last of them for ever."""

    def __init__(self, *times: float):
        super().__init__()
        self.times = list(times)

    def timed(self) -> float:
        return self.times.pop(0) if len(self.times) > 1 else self.times[0]


def warmed_up(seconds: float, *times: float) -> dict:
    kept = timing.Kept(CPU, HERE)
    kept.warm_up(Scripted(*times), seconds)
    return kept.found()


def test_warmup_ends_when_the_last_window_is_steady():
    found = warmed_up(100.0, 5.0, 3.0, 1.0)
    assert found["warmup_repeats"] == 2 + timing.WINDOW
    assert found["warmup_variation"] == 0
    nearly = warmed_up(100.0, 1.0, 1.0, 1.0, 1.0, 1.1, 1.0)  # 4.4 % while the slow one is in it
    assert nearly["warmup_repeats"] == 5 + timing.WINDOW
    within = warmed_up(100.0, 1.0, 1.0, 1.0, 1.0, 1.06)
    assert within["warmup_repeats"] == timing.WINDOW
    assert 0.02 < within["warmup_variation"] < timing.STEADY


def test_warmup_ends_at_half_the_seconds_and_two_repeats():
    unsteady = (1.0, 2.0) * 20
    found = warmed_up(30.0, *unsteady)
    assert found["warmup_repeats"] == 10
    assert found["warmup_variation"] == pytest.approx(timing._variation([*unsteady[:10]]))
    early = warmed_up(10.0, *unsteady)
    assert (early["warmup_repeats"], early["warmup_variation"]) == (4, None)
    assert warmed_up(0.0, *unsteady)["warmup_repeats"] == 2
    assert warmed_up(1.0, 9.0, 1.0)["warmup_repeats"] == 2


def test_the_most_neighbours_of_any_round_are_remembered():
    seen = iter([2, 0, None])
    kept = timing.Kept(CPU, HERE, lambda: next(seen))
    assert kept.other_processes is None
    for _ in range(3):
        kept.keep(Product(), 1, 0.0)
        assert kept.other_processes == 2


class Counter:
    """An energy counter that has gone on by one joule whenever it is read."""

    source, missing = "test", None

    def __init__(self):
        self.read = 0

    def joules(self):
        self.read += 1
        return float(self.read)


def test_what_the_device_tells_is_kept_for_each_repeat(tmp_path):
    folder = tmp_path / "cpu0" / "cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_cur_freq").write_text("2400000\n")
    here = instruments.HostInstruments(clocks=tmp_path, counters=tmp_path, sensors=dict)
    here.energy = Counter()
    timed = timing.measure(Product(), CPU, here, 4, 0.0)
    assert timed["clock_hertz"] == [2.4e9] * 4
    assert timed["joules"] == [1.0] * 4, "read before and after each repeat, and in no warm-up"
    assert here.energy.read == 8
    assert timed["temperature_celsius"] is timed["power_watts"] is None


def test_what_it_does_not_tell_is_none(tmp_path):
    nothing = instruments.HostInstruments(clocks=tmp_path, counters=tmp_path, sensors=dict)
    timed = timing.measure(Product(), CPU, nothing, 2, 0.0)
    assert {timed[name] for name in (*timing.READINGS, "joules")} == {None}


def test_processor_time_leaves_out_what_the_work_waited_for():
    """Waiting for another process's work takes none of one's own."""

    class Waiting(Product):
        def work(self):
            subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)

    waited = timing.measure(Waiting(), CPU, HERE, 3, 0.0)
    assert sum(waited["processor_seconds"]) < 0.5 * sum(waited["seconds"])
    worked = timing.measure(Product(), CPU, HERE, 20, 0.0)
    assert sum(worked["processor_seconds"]) > 0
    for spent, wall in zip(worked["processor_seconds"], worked["seconds"], strict=True):
        assert spent <= torch.get_num_threads() * wall + 0.01


class Elsewhere(Product):
    """Work of another process, which says itself how long it took."""

    def timed(self):
        return 0.25


def test_work_elsewhere_tells_its_own_time_and_no_load_is_laid_to_others():
    timed = timing.measure(Elsewhere(), CPU, HERE, 3, 0.0, warmup=False)
    assert timed["seconds"] == [0.25] * 3
    assert timed["warmup_repeats"] == 0
    assert timed["load"] is None


@pytest.mark.parametrize(
    ("load", "neighbours", "cores", "threads", "busy"),
    [
        (0.2, None, 2, 2, False),
        (0.3, None, 2, 2, True),
        (1.2, None, 2, 1, False),  # on the core that the probe left free
        (1.3, None, 2, 1, True),
        (0.3, None, 2, 4, True),
        (0.0, 1, 16, 16, True),  # another process on the GPU
        (0.0, 0, 16, 16, False),
        (None, 0, 16, 16, False),
        (None, None, 2, 2, None),
    ],
)
def test_busy_is_more_than_a_quarter_of_a_core_taken_or_a_shared_gpu(
    load, neighbours, cores, threads, busy
):
    assert timing.busy(load, neighbours, cores, threads) is busy


def test_variation_is_that_of_the_last_window():
    assert timing._variation([1.0] * 4) == float("inf")
    assert timing._variation([9.0, 1.0, 1.0, 1.0, 1.0, 1.0]) == 0
    assert timing._variation([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2.5**0.5 / 3)


def test_work_of_another_process_is_seen():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            other = psutil.Process(busy.pid)
            others, began, before = timing.Others(), time.monotonic(), used(other)
            for part in (0.15, 0.3):  # what is between two rounds does not count
                with others:
                    while used(other) - before < part:
                        pass
            load, wall, spent = others.load(), time.monotonic() - began, used(other) - before
        finally:
            busy.kill()
    assert load * wall >= 0.8 * spent
    assert load <= psutil.cpu_count() + 0.5


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
