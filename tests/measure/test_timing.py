"""Repeats: enough of them, for long enough, all kept; and what others did meanwhile."""

import subprocess
import sys
import time

import psutil
import pytest
import torch

from llama_bench.measure import timing

CPU = torch.device("cpu")


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
    timed = timing.measure(work, CPU, repeats, seconds)
    assert len(timed["seconds"]) >= repeats
    assert sum(timed["seconds"]) >= seconds
    assert min(timed["seconds"]) > 0
    one_less = timed["seconds"][:-1]
    assert len(one_less) < repeats or sum(one_less) < seconds, "stopped later than asked"
    assert timed["warmup_repeats"] >= 2
    assert work.calls == "pw" * (timed["warmup_repeats"] + len(timed["seconds"]))


def test_warmup_ends_steady_or_at_its_cap():
    for _ in range(5):
        timed = timing.measure(Product(), CPU, 1, 0.1)
        variation = timed["warmup_variation"]
        if timed["warmup_repeats"] < timing.WINDOW:
            assert variation is None
        else:
            assert variation >= 0
    none = timing.measure(Product(), CPU, 1, 0.0)
    assert none["warmup_repeats"] == 2, "without seconds the cap is two repeats"


def test_variation_is_that_of_the_last_window():
    assert timing._variation([1.0] * 4) == float("inf")
    assert timing._variation([9.0, 1.0, 1.0, 1.0, 1.0, 1.0]) == 0
    assert timing._variation([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2.5**0.5 / 3)


def test_work_of_another_process_is_seen():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            other = psutil.Process(busy.pid)
            others, began, before = timing.Others(), time.monotonic(), used(other)
            while used(other) - before < 0.3:
                pass
            load, wall, spent = others.load(), time.monotonic() - began, used(other) - before
        finally:
            busy.kill()
    assert load * wall >= 0.8 * spent
    assert load <= psutil.cpu_count() + 0.5


def used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
