"""GPUs are claimed one by one, and freed with the process that held them."""

from __future__ import annotations

import os
import subprocess
import sys

CLAIM = """
import os, sys
from llama_bench.measure import gpu
print(gpu.claim(print), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


def claimant(tmp_path, visible: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": visible, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_claim_one_each_and_the_next_gets_what_is_freed(tmp_path):
    first, second = claimant(tmp_path, "4,7"), claimant(tmp_path, "4,7")
    got = {job.stdout.readline() for job in (first, second)}
    assert got == {"4 4\n", "7 7\n"}
    third = claimant(tmp_path, "4,7")
    assert "2 GPUs are taken" in third.stdout.readline()
    first.kill()
    assert third.stdout.readline() in got
    for job in (second, third):
        job.communicate("")
    first.communicate()


def test_what_the_scheduler_has_chosen_stays(tmp_path):
    for visible in ("5", ""):
        job = claimant(tmp_path, visible)
        assert job.communicate("")[0] == f"None {visible}\n"
