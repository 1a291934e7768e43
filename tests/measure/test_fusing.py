"""The parts of fusing: sums to the bit, shares by known values, and every misfit by its name."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import checkpoint
from transformers import AutoModelForCausalLM

from llama_bench.fields import UserError
from llama_bench.measure import held_out_loss, lineage, model
from llama_bench.measure.fusing import (
    agreement,
    averaging,
    judge,
    members,
    path,
    spherical,
    weighing,
    weight_files,
)
from llama_bench.measure.text.tokenizer import Encoder
from llama_bench.records import Refusal
from llama_bench.specs import FuseSpec, Member, Pretrained

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
EDGES = [0.0, -0.0, 1.0, -1.5, 6e-8, -6e-8, 65504.0, 3.14159]


def folder_of(path: Path, **tensors: torch.Tensor) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def written(folders: list[Path], shares, target: Path) -> bytes:
    averaging.write(folders, averaging.in_every_tensor(shares), target)
    return (target / "model.safetensors").read_bytes()


def drawn(seed: int, dtype=torch.float32, numbers: int = 1000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(numbers, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_and_lone_members_to_the_bit(dtype, tmp_path):
    """Negative zeros, numbers below the normal ones and the largest of float16 among them."""
    weight = torch.cat([torch.tensor(EDGES, dtype=dtype), drawn(0, dtype)])
    first = folder_of(tmp_path / "first", w=weight)
    other = folder_of(tmp_path / "other", w=weight.flip(0))
    content = (first / "model.safetensors").read_bytes()
    for number, shares in enumerate([(1 / 3,) * 3, (0.1, 0.2, 0.7), (2.0, -0.5, -0.5)]):
        assert written([first] * 3, shares, tmp_path / f"copies{number}") == content
    assert written([first, other], (1.0, 0.0), tmp_path / "lone") == content
    again = (other / "model.safetensors").read_bytes()
    assert written([first, other], (0.0, 1.0), tmp_path / "second") == again


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_mean_is_rounded_once(dtype, tmp_path):
    """Within half a step of the members' type of the sum in float64; float32 has its own sums."""
    weights = [drawn(seed, dtype) for seed in range(3)]
    shares = (0.2, 0.3, 0.5)
    folders = [folder_of(tmp_path / str(at), w=weight) for at, weight in enumerate(weights)]
    averaging.write(folders, averaging.in_every_tensor(shares), tmp_path / "mean")
    found = load_file(tmp_path / "mean" / "model.safetensors")["w"]
    exact = sum(share * weight.double() for share, weight in zip(shares, weights, strict=True))
    assert found.dtype == dtype
    sums = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps * 8
    step = torch.finfo(dtype).eps * exact.abs() / 2 + torch.finfo(dtype).smallest_normal
    assert ((found.double() - exact).abs() <= step * 1.01 + sums).all()


def test_how_much_is_read_at_once_moves_nothing(tmp_path, monkeypatch):
    folders = [
        folder_of(tmp_path / str(seed), a=drawn(seed).view(8, 125), b=drawn(seed + 9, numbers=3))
        for seed in range(3)
    ]
    whole = written(folders, (0.5, 0.25, 0.25), tmp_path / "whole")
    monkeypatch.setattr(averaging, "NUMBERS_AT_ONCE", 7)
    assert written(folders, (0.5, 0.25, 0.25), tmp_path / "pieces") == whole


def test_numbers_that_are_none_are_named(tmp_path):
    spoiled = drawn(1)
    spoiled[500] = math.inf
    folders = [folder_of(tmp_path / "a", w=drawn(0)), folder_of(tmp_path / "b", w=spoiled)]
    with pytest.raises(Refusal, match=r"/b: w holds numbers that are not finite") as caught:
        averaging.write(folders, averaging.in_every_tensor((0.5, 0.5)), tmp_path / "mean")
    assert caught.value.status == "non-finite"
    large = [
        folder_of(tmp_path / name, w=torch.full((4,), value, dtype=torch.float16))
        for name, value in (("high", 60000.0), ("low", -60000.0))
    ]
    with pytest.raises(Refusal, match=r"w: the weighted sum is beyond what torch.float16"):
        averaging.write(large, averaging.in_every_tensor((1.5, -0.5)), tmp_path / "beyond")


def test_sharded_members_and_whole_ones(tmp_path, prepared):
    """Files are those of the first member, wherever the others keep their tensors."""
    whole, other = (checkpoint(tmp_path / name, prepared, seed) for seed, name in enumerate("ab"))
    sharded = shutil.copytree(whole, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    loaded = AutoModelForCausalLM.from_pretrained(whole)
    loaded.save_pretrained(sharded, max_shard_size="40KB")
    assert len(weight_files.files_of(sharded)) > 2
    found = []
    for number, pair in enumerate([(whole, other), (sharded, other), (other, sharded)]):
        target = tmp_path / f"mean{number}"
        averaging.write(list(pair), averaging.in_every_tensor((0.5, 0.5)), target)
        assert [p.name for p in weight_files.files_of(target)] == [
            p.name for p in weight_files.files_of(pair[0])
        ]
        found.append(AutoModelForCausalLM.from_pretrained(target).state_dict())
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name])
        assert torch.allclose(tensor, found[2][name], rtol=1e-6, atol=1e-7)


def test_slerp_keeps_the_length(tmp_path):
    """Half-way between two directions at a right angle: both times the root of a half."""
    folders = [
        folder_of(tmp_path / "a", w=torch.tensor([3.0, 0.0]), z=torch.zeros(2)),
        folder_of(tmp_path / "b", w=torch.tensor([0.0, 3.0]), z=torch.ones(2)),
    ]
    shares = spherical.shares(folders)
    assert shares("w") == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))
    assert shares("z") == (0.5, 0.5), "a zero has no direction"
    third = spherical.shares(folders, 1 / 3)("w")
    assert third == pytest.approx((math.cos(math.pi / 6), math.sin(math.pi / 6)))
    averaging.write(folders, shares, tmp_path / "mean")
    found = load_file(tmp_path / "mean" / "model.safetensors")
    assert found["w"].norm().item() == pytest.approx(3.0)
    averaging.write([folders[0]] * 2, spherical.shares([folders[0]] * 2), tmp_path / "copy")
    copied, first = (f / "model.safetensors" for f in (tmp_path / "copy", folders[0]))
    assert copied.read_bytes() == first.read_bytes()


def test_softmax_of_losses():
    """At T = 1 a tenth of a nat is hardly a difference; at a low T the best takes all."""
    assert weighing.softmax([1.0, 1.0 + math.log(3)], 1.0) == pytest.approx((0.75, 0.25))
    near = weighing.softmax([3.0, 3.05, 3.1], 1.0)
    assert max(near) / min(near) == pytest.approx(math.exp(0.1))
    assert weighing.softmax([5000.0, 5001.0], 1e-3) == (1.0, 0.0)
    for least in (1e-308, 5e-324):  # the least number there is
        assert weighing.softmax([6.0, 5.0, 5.5, 5.0], least) == (0, 0.5, 0, 0.5)


def test_a_barrier_is_the_rise_above_the_ends():
    rows = [{"share": s, "loss": v} for s, v in ((0, 3.0), (0.25, 4.0), (0.5, 3.6), (1, 2.0))]
    assert path.barrier(rows) == pytest.approx(1.25)
    assert path.barrier([{**rows[0]}, {"share": 0.5, "loss": math.nan}, rows[3]]) is None


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("model") / "first", prepared)


def changed_config(folder: Path, **keys) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | keys))


def changed_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def other_tokenizer(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][::-1]
    (folder / "tokenizer.json").write_text(json.dumps(content))


NORM = "model.norm.weight"
MISFITS = {
    "vocabulary": (lambda f: changed_config(f, vocab_size=600), "vocabularies have 512 and 600"),
    "tokenizer": (other_tokenizer, "their tokenizers differ"),
    "untied": (
        lambda f: changed_config(f, tie_word_embeddings=False),
        "lm_head.weight: tied embeddings and untied",
    ),
    "shape": (
        lambda f: changed_tensors(f, lambda t: {**t, NORM: torch.ones(31)}),
        rf"{NORM} has the shape \(32,\) and \(31,\)",
    ),
    "dtype": (
        lambda f: changed_tensors(f, lambda t: {**t, NORM: t[NORM].bfloat16()}),
        f"{NORM} has the dtype F32 and BF16",
    ),
    "missing": (
        lambda f: changed_tensors(f, lambda t: {k: v for k, v in t.items() if k != NORM}),
        f"the second lacks {NORM}",
    ),
    "additional": (
        lambda f: changed_tensors(f, lambda t: {**t, "more": torch.ones(2)}),
        "the second has more, which the first lacks",
    ),
    "heads": (
        lambda f: changed_config(f, num_attention_heads=8, head_dim=4),
        "config.json: head_dim is 8 and 4",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is not there"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "damaged": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x08" + b"\0" * 40),
        "model.safetensors cannot be read",
    ),
}


@pytest.mark.parametrize(("damage", "says"), MISFITS.values(), ids=MISFITS)
def test_what_cannot_be_fused_is_named(local, tmp_path, damage, says):
    other = shutil.copytree(local, tmp_path / "second")
    damage(other)
    spec = fusion(2)
    with pytest.raises(Refusal, match=says) as caught:
        found = members.members_of(spec, [local, other])
        agreement.one_vocabulary(found)
        agreement.one_shape(found)
    assert "second" in caught.value.reason and "\n" not in caught.value.reason


def test_what_has_no_meaning_may_differ(local, tmp_path):
    other = shutil.copytree(local, tmp_path / "second")
    changed_config(other, max_position_embeddings=64, use_cache=False, eos_token_id=5)
    found = members.members_of(fusion(2), [local, other])
    agreement.one_vocabulary(found)
    agreement.one_shape(found)


def test_integers_have_no_mean(local, tmp_path):
    """Unless they are the same in all members."""
    folders = [shutil.copytree(local, tmp_path / name) for name in ("first", "second")]
    for folder, more in zip(folders, (1, 2), strict=True):
        seen = torch.full((2,), more, dtype=torch.int64)
        changed_tensors(folder, lambda t, seen=seen: {**t, "seen": seen})
    found = members.members_of(fusion(2), folders)
    with pytest.raises(Refusal, match="second: seen differs, and of its type, I64, no mean is"):
        agreement.one_shape(found)
    agreement.one_shape(members.members_of(fusion(2), folders[:1] * 2))


def fusion(count: int, **fields) -> FuseSpec:
    named = tuple(Member(pretrained=Pretrained(digest=str(at))) for at in range(count))
    return FuseSpec(members=named, method="uniform", data="text", **fields)


def test_ancestors_of_strangers_and_relatives():
    a, b = (Pretrained(repo="llamas/a", revision=revision) for revision in ("1", "2"))
    families = [lineage.ancestors(Member(pretrained=each), None) for each in (a, b)]
    assert families == [["llamas/a@1"], ["llamas/a@2"]]
    assert lineage.shared(families) == []
    tuned = [
        lineage.ancestors(Member(pretrained=each, base=base), None)
        for each, base in ((a, "llama-1"), (b, "llama-1"), (a, "llamas/a@2"))
    ]
    assert tuned[0] == ["llama-1", "llamas/a@1"] and lineage.shared(tuned[:2]) == ["llama-1"]
    assert lineage.shared([tuned[2], families[1]]) == ["llamas/a@2"], "a base and what it became"
    assert lineage.shared([["t", "x", "y"], ["t", "y"], ["y", "t", "z"]]) == ["t", "y"]


def test_windows_that_choose_are_none_of_those_that_judge(tmp_path, prepared):
    held = held_out_loss.windows_of(prepared.parent, 64)
    ids = np.fromfile(prepared.parent / "validation.bin", dtype="<u2")
    assert not held.apart, "this corpus is judged on all of its few windows"
    assert np.array_equal(held.judging[:, 0], ids[: len(held.judging) * 64 : 64])
    folder = shutil.copytree(prepared.parent, tmp_path / "longer")
    np.tile(ids, 20).tofile(folder / "validation.bin")
    held = held_out_loss.windows_of(folder, 61)  # copies of the text fall into windows elsewhere
    assert held.apart and len(held.judging) == 40_960 // 61
    judging, choosing = ({row.tobytes() for row in w} for w in (held.judging, held.choosing))
    assert len(judging) > 600 and not judging & choosing
    with pytest.raises(UserError, match=r"shorter than one window of 1000000"):
        held_out_loss.windows_of(prepared.parent, 1_000_000)


def test_losses_are_those_of_the_logits_in_whatever_pieces(local, prepared, monkeypatch):
    loaded = model.load(local)
    windows = held_out_loss.windows_of(prepared.parent, 64).judging[:6]
    ids = torch.from_numpy(windows)
    with torch.no_grad():
        logits = loaded(ids[:, :-1]).logits
    told = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).double(), ids[:, 1:].flatten(), reduction="none"
    )
    for at_once in (2**22, 3 * 64 * 512, 10 * 512):  # all, three windows, ten tokens of one
        monkeypatch.setattr(held_out_loss, "LOGITS_AT_ONCE", at_once)
        found = held_out_loss.losses(loaded, windows)
        assert found.shape == (6, 64) and found.dtype == np.float64
        assert np.abs(found.ravel() - told.numpy()).max() < 1e-4


def test_a_tokenizer_of_its_own_reads_the_same_documents(shared, prepared):
    """Those that all others are judged on; fine-tunings learn from the test documents."""
    source = shared("models", "stories260K")
    held = held_out_loss.windows_of(prepared.parent, 128, source)
    assert held.judging.max() < 512 and held.token_bytes.sum() > 0
    own, its = (Encoder(folder) for folder in (prepared.parent / "tokenizer", source))
    ids = np.fromfile(prepared.parent / "validation.bin", dtype="<u2")
    text = own.tokenizer.decode(ids[ids != own.bos].tolist())
    read = held.judging[0][held.judging[0] != its.bos].tolist()
    assert its.tokenizer.decode(read).strip()[:200] in text
    same = held_out_loss.windows_of(prepared.parent, 128, prepared.parent / "tokenizer")
    assert np.array_equal(same.judging, held_out_loss.windows_of(prepared.parent, 128).judging)


def test_how_texts_are_cut_is_no_part_of_a_tokenizer(local, tmp_path):
    other = shutil.copytree(local, tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text())
    content["padding"] = {"strategy": "BatchLongest"}
    (other / "tokenizer.json").write_text(json.dumps(content, indent=4))
    assert held_out_loss.same_tokenizer(local, other)
    other_tokenizer(other)
    assert not held_out_loss.same_tokenizer(local, other)


def test_weights_kept_as_they_are_stored_give_the_losses_of_float32(local, prepared, tmp_path):
    """To the bit, and each part narrows again when it has computed."""
    half = model.load(local, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    shutil.copy(local / "tokenizer.json", tmp_path / "half")
    windows = held_out_loss.windows_of(prepared.parent, 64).judging[:6]
    expected = held_out_loss.losses(model.load(tmp_path / "half"), windows)
    kept = judge.loaded_from(tmp_path / "half")
    assert {weight.dtype for weight in kept.parameters()} == {torch.bfloat16}
    assert np.array_equal(held_out_loss.losses(kept, windows), expected)
    assert {weight.dtype for weight in kept.parameters()} == {torch.bfloat16}
    whole = judge.loaded_from(local)
    assert {weight.dtype for weight in whole.parameters()} == {torch.float32}


def test_sets_of_members_are_all_or_as_many_as_asked():
    assert path.sets_of_members(3, 1) == [[(0,)], [(0, 1)], [(0, 1, 2)]]
    assert [len(sets) for sets in path.sets_of_members(4, 6)] == [4, 6, 4, 1]
    eight = path.sets_of_members(8, 6)
    assert [len(sets) for sets in eight] == [8, 6, 6, 6, 6, 6, 6, 1]
    assert all(len(set(sets)) == len(sets) for sets in eight)
    assert {len(places) for places in eight[3]} == {4} and eight == path.sets_of_members(8, 6)
