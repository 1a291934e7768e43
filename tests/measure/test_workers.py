"""Workers: results in order whoever made them, errors passed on, no process left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_bench.measure.text.workers import in_order


def double(number: int) -> int:
    if number == 13:
        raise ValueError("thirteen")
    return 2 * number


def stay(_: int) -> None:
    print(os.getpid(), flush=True)
    signal.pause()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order_and_errors_are_passed_on(workers):
    assert list(in_order(double, range(12), workers)) == list(range(0, 24, 2))
    found = in_order(double, iter(range(20)), workers)
    with pytest.raises(ValueError, match="thirteen"):
        list(found)


def test_workers_end_with_a_starter_that_is_killed():
    code = "from test_workers import *; list(in_order(stay, range(9), 2))"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    ) as starter:
        pids = {int(starter.stdout.readline()) for _ in range(2)}
        assert len(pids) == 2 and starter.pid not in pids
        starter.kill()
        rest, _ = starter.communicate(timeout=60)  # ends once nobody holds the pipe any more
        assert rest == b""
