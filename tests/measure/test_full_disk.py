"""A disk that fills costs one message and nothing that was saved before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training import spec_of

from llama_bench import records
from llama_bench.measure.job import carry_out
from llama_bench.measure.training import state as states


def train(spec, output: Path, prepared: Path) -> list[str]:
    words = [sys.executable, "-m", "llama_bench", "train", spec.canonical()]
    return [*words, str(output), str(prepared)]


def test_a_limit_on_files_is_told_and_the_state_before_is_used(prepared, tmp_path):
    """The kernel refuses (RLIMIT_FSIZE) what is longer than the state of a stopped training."""
    spec = spec_of(prepared, tokens=100_000)
    output = tmp_path / spec.id / "record.json"
    job = subprocess.Popen(train(spec, output, prepared), stderr=subprocess.PIPE, text=True)
    while not (output.parent / "trunk.pt").exists() and job.poll() is None:
        os.sched_yield()
    job.send_signal(signal.SIGTERM)
    job.communicate()
    stopped = states.load_newest(output.parent, spec.trunk).step
    assert 0 < stopped < spec.steps
    limited = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", *train(spec, output, prepared)]
    ended = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "the disk is full" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert str(output.parent) in ended.stderr
    assert not output.exists()
    assert states.load_newest(output.parent, spec.trunk).step == stopped
    assert not list(output.parent.glob(".*.pt.*")), "half-written files are cleared away"
    carry_out("train", spec.canonical(), output, [prepared])
    assert records.read(output).status == "ok"


def test_a_file_system_without_room(prepared, tmp_path):
    """A real one, in a name space of its own; the training ends before its first state is whole."""
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=160k none "$1" || exit 77; shift; "$@"'
    spec = spec_of(prepared, tokens=10_000)
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    words += [str(small), *train(spec, small / spec.id / "record.json", prepared)]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare(1) here")
    if ended.returncode in (1, 77) and "llama_bench" not in ended.stderr:
        pytest.skip(f"no file system can be mounted here: {ended.stderr.strip()}")
    assert ended.returncode == 2, ended.stderr
    assert "the disk is full" in ended.stderr
    assert "Traceback" not in ended.stderr
