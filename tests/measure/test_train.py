"""train: a resumed run equals an uninterrupted one, a branch its own trunk, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training import spec_of

from llama_bench import records
from llama_bench.measure import state as states
from llama_bench.measure import train
from llama_bench.measure.job import carry_out
from llama_bench.measure.tokens import Order, Tokens
from llama_bench.records import Refusal
from llama_bench.specs import TrainSpec


def trained(spec: TrainSpec, root: Path, inputs: list[Path]) -> Path:
    """The record of the finished training below `root`."""
    path = root / spec.id / "record.json"
    carry_out("train", spec.canonical(), path, inputs)
    return path


def weights(record: Path) -> bytes:
    return (record.parent / "checkpoint" / "model.safetensors").read_bytes()


def test_it_learns_and_is_any_tools_model(prepared, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = trained(spec_of(prepared, tokens=150_000), tmp_path, [prepared])
    record = records.read(path)
    assert record.status == "ok"
    assert record.result["loss"] < 0.85 * np.log(512)
    model = AutoModelForCausalLM.from_pretrained(path.parent / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(path.parent / "checkpoint")
    assert model.num_parameters() == record.result["parameters"]["all"]
    ids = tokenizer("import os\n", return_tensors="pt")["input_ids"]
    assert model.generate(ids, max_new_tokens=5, do_sample=False).shape[1] == ids.shape[1] + 5
    curve = np.genfromtxt(path.parent / "curve.csv", delimiter=",", names=True)
    assert curve["tokens"][-1] == record.result["tokens"]
    assert curve["validation_loss"][-1] == pytest.approx(record.result["loss"], abs=1e-5)


def test_loss_and_bits_per_byte_agree_with_a_bare_count(prepared, tmp_path):
    """The same held-out windows, one at a time, with transformers' own loss."""
    from transformers import AutoModelForCausalLM

    path = trained(spec_of(prepared), tmp_path, [prepared])
    result = records.read(path).result
    model = AutoModelForCausalLM.from_pretrained(path.parent / "checkpoint").eval()
    ids = np.fromfile(prepared.parent / "validation.bin", dtype="<u2").astype(np.int64)
    windows = (len(ids) - 1) // 64
    wanted = min(windows, train.VALIDATION_TOKENS // 64)
    lengths = np.load(prepared.parent / "token_bytes.npy")
    nats = text_nats = size = count = 0
    for window in np.linspace(0, windows - 1, wanted).astype(int):
        piece = torch.from_numpy(ids[window * 64 : window * 64 + 65])
        with torch.no_grad():
            logits = model(piece[None, :-1]).logits[0]
        losses = -logits.log_softmax(-1)[torch.arange(64), piece[1:]].double().numpy()
        nats, count = nats + losses.sum(), count + 64
        text_nats += losses[lengths[piece[1:]] > 0].sum()
        size += lengths[piece[1:]].sum()
    assert result["loss"] == pytest.approx(nats / count, rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(text_nats / size / np.log(2), rel=1e-5)


def test_a_branch_equals_a_run_of_its_own(prepared, tmp_path):
    short, long = spec_of(prepared, tokens=20_000), spec_of(prepared, tokens=40_000)
    first = trained(short, tmp_path / "chain", [prepared])
    chained = trained(long, tmp_path / "chain", [prepared, first])
    alone = trained(long, tmp_path / "alone", [prepared])
    assert weights(chained) == weights(alone)
    assert records.read(chained).result["loss"] == records.read(alone).result["loss"]
    assert (chained.parent / "curve.csv").read_bytes() == (alone.parent / "curve.csv").read_bytes()
    result = records.read(chained).result
    assert result["continued_from"] == short.id
    assert result["trained_tokens"] < records.read(alone).result["trained_tokens"] == 39_936


def test_a_killed_training_goes_on_where_it_was(prepared, tmp_path):
    spec = spec_of(prepared, tokens=300_000)
    whole = trained(spec, tmp_path / "whole", [prepared])
    output = tmp_path / "killed" / spec.id / "record.json"
    command = [sys.executable, "-m", "llama_bench", "train", spec.canonical()]
    command += [str(output), str(prepared)]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    trunk = output.parent / "trunk.pt"
    while not trunk.exists() and job.poll() is None:
        os.sched_yield()
    job.send_signal(signal.SIGTERM)
    job.communicate()
    assert job.returncode == 128 + signal.SIGTERM
    assert not output.exists()
    assert 0 < states.load_newest(output.parent, spec.trunk).step < spec.steps
    carry_out("train", spec.canonical(), output, [prepared])
    assert weights(output) == weights(whole)
    assert records.read(output).result["loss"] == records.read(whole).result["loss"]
    assert not (output.parent / states.NEWEST).exists()


def test_a_damaged_state_is_recognised_and_the_one_before_used(tmp_path):
    for step in (10, 20):
        states.save_newest(states.State(trunk="t", step=step), tmp_path)
    newest = tmp_path / states.NEWEST
    assert states.load_newest(tmp_path, "t").step == 20
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert states.load_newest(tmp_path, "t").step == 10
    newest.write_bytes(b"half")
    assert states.load_newest(tmp_path, "t").step == 10
    assert states.load_newest(tmp_path, "another trunk") is None


def test_divergence_is_a_result(prepared, tmp_path):
    path = trained(spec_of(prepared, learning_rate=1e4, warmup_tokens=0), tmp_path, [prepared])
    record = records.read(path)
    assert record.status == "diverged"
    assert 0 <= record.result["step"] < 156
    longer = spec_of(prepared, learning_rate=1e4, warmup_tokens=0, tokens=80_000)
    after = records.read(trained(longer, tmp_path, [prepared, path]))
    assert after.status == "skipped"
    assert "diverged" in after.reason


def test_a_run_that_cannot_fit_in_memory_is_a_result(prepared, tmp_path):
    shape = dict(layers=1, width=2**18, heads=2, ffn_width=2**20)
    with pytest.raises(Refusal) as caught:
        train.run(spec_of(prepared, model=shape), tmp_path, [prepared], None)
    assert caught.value.status == "out-of-memory"


def test_every_window_once_per_epoch_in_an_order_of_the_seed():
    order = Order(windows=10, batch=4, seed=3)
    taken = np.concatenate([order.step(step) for step in range(5)])
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert taken[:10].tolist() != taken[10:].tolist()
    assert Order(10, 4, seed=3).step(4).tolist() == taken[16:].tolist()
    assert Order(10, 4, seed=4).step(0).tolist() != taken[:4].tolist()


def test_targets_are_one_token_later(tmp_path):
    np.arange(101, dtype="<u2").tofile(tmp_path / "t.bin")
    tokens = Tokens(tmp_path / "t.bin", 2, context=10)
    inputs, targets = tokens.take(np.array([0, 9]))
    assert tokens.windows == 10
    assert torch.equal(inputs + 1, targets)
    assert targets[1, -1] == 100


def test_the_rate_warms_up_holds_and_decays_to_nothing(prepared):
    spec = spec_of(prepared)
    rates = [train.rate(spec, step) for step in range(spec.steps)]
    assert rates[0] < rates[3] < rates[7] == 3e-3
    assert rates[spec.trunk_steps - 1] == 3e-3 > rates[spec.trunk_steps] > rates[-1] > 0
    assert rates[-1] < 0.02 * 3e-3


if os.environ.get("OMP_NUM_THREADS") != "1":
    pytest.skip("byte-equal runs are promised for one thread", allow_module_level=True)
