"""Two processes give the loss of one, and their states and checkpoints tell nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training import spec_of

from llama_bench import records
from llama_bench.measure.job import carry_out
from llama_bench.measure.training import parallel
from llama_bench.measure.training import state as states

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(spec, output: Path, inputs: list[Path], strategy: str) -> subprocess.Popen:
    words = [sys.executable, *TORCHRUN, "-m", "llama_bench", "train", spec.canonical()]
    return subprocess.Popen(
        [*words, str(output), *map(str, inputs)],
        env=os.environ | {parallel.FORCED: strategy, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(job: subprocess.Popen) -> str:
    _, told = job.communicate()
    assert job.returncode == 0, told
    return told


def weights(record: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(record.parent / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory) -> Path:
    spec = spec_of(prepared, tokens=10_000)
    path = tmp_path_factory.mktemp("alone") / spec.id / "record.json"
    carry_out("train", spec.canonical(), path, [prepared])
    return path


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_loss_of_one(prepared, alone, tmp_path, strategy):
    spec = spec_of(prepared, tokens=10_000)
    output = tmp_path / spec.id / "record.json"
    told = ended(start(spec, output, [prepared], strategy))
    assert told.count("100% of its steps") == 1, "rank 0 alone tells"
    one, two = records.read(alone).result, records.read(output).result
    assert (two["strategy"], two["processes"], two["micro_batch"]) == (strategy, 2, 2)
    for key in ("loss", "train_loss", "trunk_loss", "averaged_loss", "bits_per_byte"):
        assert two[key] == pytest.approx(one[key], rel=1e-6), key
    ours, theirs = weights(alone), weights(output)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name], atol=1e-4), name
    kept = states.load(output.parent / "trunk.pt", spec.trunk)
    wanted = states.load(alone.parent / "trunk.pt", spec.trunk)
    assert kept.optimizer.keys() == wanted.optimizer.keys()
    for name, mean in wanted.average.items():
        assert torch.allclose(mean, kept.average[name], atol=1e-4), name


def test_one_process_goes_on_where_two_were_stopped(prepared, tmp_path):
    """A signal to one of the two ends both; their whole state is any number's to take."""
    spec = spec_of(prepared, tokens=40_000)
    output = tmp_path / spec.id / "record.json"
    job = start(spec, output, [prepared], "fsdp")
    while not (output.parent / "trunk.pt").exists() and job.poll() is None:
        os.sched_yield()
    job.send_signal(signal.SIGTERM)
    job.communicate()
    assert job.returncode != 0
    assert not output.exists()
    state = states.load_newest(output.parent, spec.trunk)
    assert 0 < state.step < spec.steps
    carry_out("train", spec.canonical(), output, [prepared])
    record = records.read(output)
    assert record.status == "ok"
    assert record.result["strategy"] == "alone"
    assert len((output.parent / "curve.csv").read_text().splitlines()) > 100


def test_a_batch_that_cannot_be_shared_is_named(prepared, tmp_path):
    job = start(spec_of(prepared, batch=3), tmp_path / "record.json", [prepared], "ddp")
    _, told = job.communicate()
    assert job.returncode != 0
    assert "train.batch: 3" in told
    assert not (tmp_path / "record.json").exists()


def test_what_does_not_fit_one_device_is_sharded():
    gigabyte = 10**9
    assert parallel.strategy(gigabyte, 1, gigabyte) == "alone"
    assert parallel.strategy(10**9, 8, 80 * gigabyte) == "ddp"
    assert parallel.strategy(7 * 10**9, 8, 80 * gigabyte) == "fsdp"
    assert parallel.strategy(7 * 10**9, 8, None) == "ddp"
