"""GPUs are claimed by one process each, and freed with it; a stand-in for nvidia-smi lists them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CLAIM = """
import os, sys
from llama_bench.fields import UserError
from llama_bench.measure import gpu
try:
    claimed = gpu.claim(print, sys.argv[1] or None, gpu.wanted())
    print(claimed, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
except UserError as error:
    print(error)
sys.stdin.read()
"""
LISTED = (
    "0, GPU-1a2b, NVIDIA A10",
    "1, GPU-3c4d, NVIDIA H100 80GB HBM3",
    "2, GPU-5e6f, NVIDIA H100 80GB HBM3",
)


@pytest.fixture
def claimant(tmp_path):
    """Starts processes that claim what is asked and hold it until they are ended."""
    started = []
    driver = tmp_path / "nvidia-smi"
    asked = '[ "$1" = --query-gpu=index,uuid,name ] || exit 1'
    driver.write_text("\n".join(["#!/bin/sh", asked, "cat <<END", *LISTED, "END", ""]))
    driver.chmod(0o755)

    def start(visible=None, named="", gpus=1, **given) -> subprocess.Popen:
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "TMPDIR": str(tmp_path), **given}
        environment["LLAMA_BENCH_GPUS"] = str(gpus)
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        command = [sys.executable, "-c", CLAIM, named]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(subprocess.Popen(command, env=environment, **pipes))
        return started[-1]

    yield start
    for job in started:
        job.kill()
        job.wait()


def first_line(job) -> str:
    return job.stdout.readline().strip()


def test_processes_claim_one_each_and_the_next_gets_what_is_freed(claimant):
    first, second = claimant("4,7"), claimant("4,7")
    got = {first_line(job) for job in (first, second)}
    assert got == {"4 4", "7 7"}
    third = claimant("4,7")
    assert first_line(third) == "2 of 2 GPUs are taken by other jobs; waits for 1"
    first.kill()
    assert first_line(third) in got


def test_what_the_scheduler_has_chosen_stays(claimant):
    for visible in ("5", ""):
        assert first_line(claimant(visible)) == f"None {visible}".strip()


def test_the_gpu_that_is_named_is_claimed_and_no_other(claimant):
    assert first_line(claimant(named="h100")) == "GPU-3c4d GPU-3c4d"
    assert first_line(claimant(named="H100 80GB")) == "GPU-5e6f GPU-5e6f"
    third = claimant(named="H100")
    assert first_line(third) == "2 of 2 GPUs are taken by other jobs; waits for 1"
    assert first_line(claimant()) == "GPU-1a2b GPU-1a2b", "unnamed, any is right"
    assert first_line(claimant(named="B200")) == "None None", "who looks for it says what is there"


def test_a_name_is_found_behind_what_a_scheduler_lists(claimant):
    """By index or by UUID; what one job was shown by index is taken for one that asks by UUID."""
    assert first_line(claimant("0,2", named="H100")) == "2 2"
    assert first_line(claimant("GPU-1a,GPU-5e,GPU-3c", named="H100")) == "GPU-3c GPU-3c"
    assert first_line(claimant("GPU-1a2b,GPU-3c", named="A100")) == "None GPU-1a2b,GPU-3c"
    other = claimant("1,0", named="H100", CUDA_DEVICE_ORDER="FASTEST_FIRST")
    assert first_line(other) == "1 1", "what an index means is not known, so it may be the one"


def test_several_are_claimed_at_once_or_none(claimant):
    first = claimant("0,1,2", gpus=2)
    assert first_line(first) == "0,1 0,1"
    second = claimant("0,1,2", gpus=2)
    assert first_line(second) == "2 of 3 GPUs are taken by other jobs; waits for 2"
    assert first_line(claimant("0,1,2")) == "2 2", "the one that is left is not kept from others"
    first.kill()
    assert first_line(second) == "0,1 0,1"


def test_two_that_start_together_do_not_wait_for_each_other(claimant):
    jobs = [claimant("0,1", gpus=2) for _ in range(4)]
    for job in jobs:
        job.stdin.close()  # ends as soon as it has what it claims
    assert [job.stdout.read().splitlines()[-1] for job in jobs] == ["0,1 0,1"] * 4


def test_more_than_there_are_is_a_mistake(claimant):
    assert first_line(claimant(gpus=4)) == ("4 GPUs are asked for, this process sees 3; lower gpus")
    assert "sees 1" in first_line(claimant("2", gpus=2))
    assert "LLAMA_BENCH_GPUS=two: is no number" in first_line(claimant(gpus="two"))
    assert "sees 1" in first_line(claimant(named="A10", gpus=2))
