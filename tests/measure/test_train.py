"""train: a resumed run equals an uninterrupted one, a branch its own trunk, byte for byte."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training import spec_of

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure import memory, model, train
from llama_bench.measure.job import carry_out
from llama_bench.measure.training import state as states
from llama_bench.measure.training.engine import Engine
from llama_bench.measure.training.tokens import Order, Tokens, batches
from llama_bench.measure.training.validation import VALIDATION_TOKENS
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
    wanted = min(windows, VALIDATION_TOKENS // 64)
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
    spec = spec_of(prepared, tokens=100_000)
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


def test_a_cooldown_of_its_own_reads_what_its_trunk_has_not_read():
    def taken(steps, cooldown=None):
        order = Order(windows=20, batch=2, seed=3, cooldown=cooldown)
        return np.concatenate([order.step(step) for step in steps]).tolist()

    own = taken(range(6, 10), cooldown=(6, 1))
    assert taken(range(6), cooldown=(6, 1)) == taken(range(6)), "the trunk is the same"
    assert sorted(own) == sorted(taken(range(6, 10))), "in one epoch: the rest of it"
    assert own != taken(range(6, 10)) and own != taken(range(6, 10), cooldown=(6, 2))
    assert taken(range(10, 20), cooldown=(6, 1)) != taken(range(10, 20))
    assert sorted(taken(range(10, 20), cooldown=(6, 1))) == list(range(20)), "the next is whole"


def test_targets_are_one_token_later(tmp_path):
    np.arange(101, dtype="<u2").tofile(tmp_path / "t.bin")
    tokens = Tokens(tmp_path / "t.bin", 2, context=10)
    inputs, targets = tokens.take(np.array([0, 9]))
    assert tokens.windows == 10
    assert torch.equal(inputs + 1, targets)
    assert targets[1, -1] == 100


def test_more_tokens_than_asked_are_never_read(tmp_path):
    np.arange(101, dtype="<u2").tofile(tmp_path / "t.bin")
    tokens = Tokens(tmp_path / "t.bin", 2, context=10, unique=45)
    assert tokens.windows == 4
    with pytest.raises(UserError, match=r"data.unique_tokens.*101"):
        Tokens(tmp_path / "t.bin", 2, context=10, unique=102)
    with pytest.raises(UserError, match=r"data.unique_tokens.*context"):
        Tokens(tmp_path / "t.bin", 2, context=10, unique=10)


@pytest.mark.parametrize("ahead", [0, 1, 4, 50])
def test_batches_read_ahead_are_those_read_when_asked(tmp_path, ahead):
    np.arange(101, dtype="<u2").tofile(tmp_path / "t.bin")
    tokens, order = Tokens(tmp_path / "t.bin", 2, context=10), Order(10, 4, seed=0)
    read = list(batches(tokens, order, range(3, 9), slice(1, 3), ahead))
    assert len(read) == 6
    for step, (inputs, _) in enumerate(read, start=3):
        assert torch.equal(inputs, tokens.take(order.step(step)[1:3])[0])


def test_few_tokens_are_repeated_and_counted(prepared, tmp_path):
    spec = spec_of(prepared, unique_tokens=3_000)
    result = records.read(trained(spec, tmp_path, [prepared])).result
    assert result["unique_tokens"] == 2_999 // 64 * 64
    assert result["tokens"] == 39_936
    fresh = records.read(trained(spec_of(prepared), tmp_path, [prepared])).result
    assert fresh["unique_tokens"] == 39_936
    assert result["train_loss"] < fresh["train_loss"]
    assert result["loss"] > fresh["loss"]


def test_cosine_has_no_trunk_and_takes_none(prepared, tmp_path):
    cosine = dict(schedule="cosine", decay=None, decay_share=None)
    path = trained(spec_of(prepared, **cosine), tmp_path, [prepared])
    result = records.read(path).result
    assert not (path.parent / "trunk.pt").exists()
    assert result["trunk_loss"] is result["averaged_loss"] is result["continued_from"] is None
    assert result["loss"] < np.log(512)
    curve = np.genfromtxt(path.parent / "curve.csv", delimiter=",", names=True)
    assert curve["learning_rate"][-1] == pytest.approx(3e-4)


def test_losses_at_the_branching_point_are_those_of_its_weights(prepared, tmp_path):
    """Weights and their mean, taken from the kept trunk into a bare model of transformers: measured
    on few windows, and known on all of them far better than those few tell."""
    spec = spec_of(prepared)
    path = trained(spec, tmp_path, [prepared])
    result = records.read(path).result
    state = states.load(path.parent / "trunk.pt", spec.trunk)
    bare = model.build(spec.model, 512, 64, seed=1).eval()
    tokens = Tokens(prepared.parent / "validation.bin", 2, 64)
    wanted = min(tokens.windows, VALIDATION_TOKENS // 64)
    inputs, targets = tokens.take(np.linspace(0, tokens.windows - 1, wanted).astype(int))

    def loss_of(weights) -> np.ndarray:
        bare.load_state_dict(weights, strict=False)
        with torch.no_grad():
            logits = bare(inputs).logits.flatten(0, 1)
        losses = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
        return losses.view(targets.shape).mean(dim=1).numpy()

    end = loss_of(load_file(path.parent / "checkpoint/model.safetensors"))
    for weights_of, key in ((state.model, "trunk_loss"), (state.average, "averaged_loss")):
        losses = loss_of(weights_of)
        assert result[key] == pytest.approx((losses - end)[::8].mean() + end.mean(), rel=1e-6)
        few_alone = abs(losses[::8].mean() - losses.mean())
        assert abs(result[key] - losses.mean()) < max(0.2 * few_alone, 0.01)
    assert result["loss"] < result["trunk_loss"]
    assert state.trunk_loss is state.averaged_loss is None


def test_a_sweep_s_best_rate_is_trained_with(prepared, tmp_path):
    tried = [spec_of(prepared, tokens=10_000, learning_rate=rate) for rate in (1e-3, 1e4)]
    paths = [trained(spec, tmp_path, [prepared]) for spec in tried]
    assert [records.read(path).status for path in paths] == ["ok", "diverged"]
    names = tuple(spec.id for spec in tried)
    spec = spec_of(prepared, tokens=20_000, learning_rate=None, sweep=names)
    record = records.read(trained(spec, tmp_path, [prepared, *paths]))
    assert record.status == "ok"
    assert record.result["learning_rate"] == 1e-3
    assert record.result["sweep"]["rates"] == [1e-3, 1e4]
    assert record.result["sweep"]["losses"][1] is None
    plain = records.read(
        trained(spec_of(prepared, tokens=20_000, learning_rate=1e-3), tmp_path, [prepared])
    )
    assert plain.result["loss"] == record.result["loss"]
    assert (plain.result["learning_rate"], plain.result["sweep"]) == (1e-3, None)


def test_a_batch_in_parts_with_activations_computed_again_is_the_same_batch(prepared):
    spec = spec_of(prepared)
    tokens = Tokens(prepared.parent / "train.bin", 2, 64)
    batch = tokens.take(np.arange(4))
    losses, norms = [], []
    for micro_batch, checkpointed in ((4, False), (1, False), (2, True)):
        engine = Engine(model.build(spec.model, 512, 64, 0), spec, "alone", torch.device("cpu"))
        engine.micro_batch, engine.objective.checkpointed = micro_batch, checkpointed
        losses.append(engine.gradients(batch).item())
        gradients = [weight.grad for weight in engine.weights.values()]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)


def test_a_batch_that_does_not_fit_is_taken_in_parts(prepared):
    """A real limit on the memory of this process: all sequences at once are refused."""
    wide = dict(layers=1, width=16, heads=1, ffn_width=4096)
    spec = spec_of(prepared, model=wide, batch=64)
    engine = Engine(model.build(spec.model, 512, 64, 0), spec, "alone", torch.device("cpu"))
    batch = Tokens(prepared.parent / "train.bin", 2, 64).take(np.arange(64))
    memory.release()
    held = memory._status_bytes("VmData")
    if held is None:
        pytest.skip("this system does not tell what a process holds")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + 300 * 2**20, before[1]))
    try:
        engine.find_room(batch)
        assert torch.isfinite(engine.gradients(batch))
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    assert engine.micro_batch < 64
    assert 64 % engine.micro_batch == 0


if os.environ.get("OMP_NUM_THREADS") != "1":
    pytest.skip("byte-equal runs are promised for one thread", allow_module_level=True)
