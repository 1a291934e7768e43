"""Fusing what others trained: architectures that are no Llama, and layouts of the Hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from llama_bench import records
from llama_bench.measure import ensemble, model
from llama_bench.measure.job import carry_out
from llama_bench.records import Refusal
from llama_bench.specs import FuseSpec, Member, Pretrained

CONTEXT, IDS = 64, 512
_LLAMAS_WORDS = dict(
    **dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    max_position_embeddings=CONTEXT,
)
_GPTS_WORDS = dict(n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT)
SHAPES = {
    # without torch's own attention
    "gpt_neo": dict(
        **dict(hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=CONTEXT),
        attention_types=[[["global", "local"], 1]],
        window_size=8,
    ),
    "bloom": dict(hidden_size=32, n_layer=2, n_head=4),
    "gemma2": dict(**_LLAMAS_WORDS, num_key_value_heads=2, head_dim=8),
    "gpt2": _GPTS_WORDS,
    "gpt_neox": _LLAMAS_WORDS,
    # its files hold each expert apart, the model all in one tensor
    "mixtral": dict(**_LLAMAS_WORDS, num_key_value_heads=2, num_local_experts=2),
    # a state in place of keys and values, one beside them, and no cache at all
    "mamba": dict(hidden_size=32, num_hidden_layers=2, state_size=4),
    "lfm2": dict(**_LLAMAS_WORDS, num_key_value_heads=2, layer_types=["conv", "full_attention"]),
    "openai-gpt": _GPTS_WORDS,
}


def made(kind: str, prepared: Path, folder: Path, seed: int, dtype=torch.float32) -> Path:
    """Random weights, so wide that what two models say differs, and the study's tokenizer."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, vocab_size=IDS, **SHAPES[kind])
    built = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for weight in built.parameters():
            if weight.dim() == 2:
                weight.mul_(8)
    shutil.copytree(prepared.parent / "tokenizer", folder)
    built.save_pretrained(folder)
    return folder


def in_the_hubs_layout(folder: Path) -> Path:
    """As GPT-2 and Pythia are published: no name of the model without its head, or the masks of
    attention among the weights."""
    weights = load_file(folder / "model.safetensors")
    mask = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).tril().view(1, 1, CONTEXT, CONTEXT)
    weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    for layer in range(2):
        if "wte.weight" in weights:
            weights[f"h.{layer}.attn.bias"] = mask.float()
            continue
        name = f"gpt_neox.layers.{layer}.attention"
        weights[f"{name}.bias"] = mask.clone()
        weights[f"{name}.masked_bias"] = torch.tensor(-torch.inf, dtype=torch.float16)
        weights[f"{name}.rotary_emb.inv_freq"] = torch.tensor([1.0])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def pair(kind: str, prepared: Path, folder: Path) -> list[Path]:
    kind, _, layout = kind.partition(" ")
    found = [made(kind, prepared, folder / name, seed) for seed, name in enumerate("ab")]
    return [in_the_hubs_layout(each) for each in found] if layout else found


@pytest.mark.parametrize(
    "kind", ["gpt_neo", "bloom", "gemma2", "gpt_neox", "mixtral", "gpt2 hub", "gpt_neox hub"]
)
def test_a_mixture_of_another_architecture(kind, prepared, tmp_path):
    """Its probabilities are the members' mean, and a cache changes nothing."""
    folders = pair(kind, prepared, tmp_path)
    ensemble.write(folders, [0.5, 0.5], "mixture", tmp_path / "whole")
    whole, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "whole", output_loading_info=True
    )
    assert not any(report.values()), "nothing is left over, nothing is made up"
    ids = torch.randint(3, IDS, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told = [model.load(folder).eval()(ids).logits.double().softmax(-1) for folder in folders]
        found = whole.eval()(ids).logits.double().exp()
    assert (told[0] - told[1]).abs().max() > 0.01, "the members do disagree"
    assert (found - (told[0] + told[1]) / 2).abs().max() < 1e-6
    asked = dict(attention_mask=torch.ones_like(ids), max_new_tokens=12, pad_token_id=0)
    texts = [whole.generate(ids, use_cache=cached, **asked) for cached in (True, False)]
    assert torch.equal(*texts)


@pytest.mark.parametrize("kind", ["mamba", "lfm2", "openai-gpt"])
def test_what_keeps_other_things_than_keys_and_values_is_no_member(kind, prepared, tmp_path):
    folders = pair(kind, prepared, tmp_path)
    with pytest.raises(Refusal, match=rf"/a is a {kind}, which does not keep keys and values"):
        ensemble.write(folders, [0.5, 0.5], "mixture", tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("dtypes", "holds_both"),
    [
        ((torch.bfloat16, torch.float16), torch.float32),
        ((torch.float16, torch.bfloat16), torch.float32),
        ((torch.bfloat16, torch.bfloat16), torch.bfloat16),
        ((torch.bfloat16, torch.float32), torch.float32),
    ],
)
def test_an_ensemble_has_a_type_that_holds_all_its_members(dtypes, holds_both, prepared, tmp_path):
    """float16 has not the range of bfloat16, which has not its digits."""
    folders = [
        made("gpt2", prepared, tmp_path / str(at), at, dtype) for at, dtype in enumerate(dtypes)
    ]
    ensemble.write(folders, [0.5, 0.5], "mixture", tmp_path / "whole")
    loaded = model.load(tmp_path / "whole", dtype="auto")
    assert loaded.config.dtype == holds_both
    for place, folder in enumerate(folders):
        wide = model.load(folder).state_dict()
        for name, weight in loaded.members[place].state_dict().items():
            assert weight.dtype == holds_both and torch.equal(weight.float(), wide[name]), name


def fused(prepared: Path, folders: list[Path], folder: Path, **fields) -> records.Record:
    named = tuple(
        Member(pretrained=Pretrained(digest=path.name), base="of-both") for path in folders
    )
    spec = FuseSpec(members=named, data=prepared.parent.name, **fields)
    output = folder / spec.id / "record.json"
    carry_out("fuse", spec.canonical(), output, [prepared, *folders])
    return records.read(output)


@pytest.mark.parametrize("method", ["uniform", "slerp"])
@pytest.mark.parametrize("kind", ["gpt2 hub", "gpt_neox hub"])
def test_published_relatives_are_averaged(kind, method, prepared, tmp_path):
    """Masks are copied, whatever their type and numbers; the rest is averaged. What the study says
    they are fine-tuned from is what they have in common."""
    folders = pair(kind, prepared, tmp_path)
    record = fused(prepared, folders, tmp_path / "runs", method=method, line=3)
    assert record.status == "ok", record.reason
    assert record.result["related"] and record.result["ancestors"] == ["of-both", record.id]
    stored = [load_file(folder / "model.safetensors") for folder in folders]
    found = load_file(tmp_path / "runs" / record.id / "checkpoint" / "model.safetensors")
    assert found.keys() == stored[0].keys()
    copied = [name for name in found if torch.equal(stored[0][name], stored[1][name])]
    assert any("attn.bias" in name or "masked_bias" in name for name in copied)
    for name, weight in found.items():
        first, second = (each[name] for each in stored)
        if name in copied:
            assert torch.equal(weight, first) and weight.dtype == first.dtype
        elif method == "uniform":
            assert torch.allclose(weight, (first + second) / 2, atol=1e-6)


def changed(folder: Path, change: Callable[[dict], dict]) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "says", "status"),
    [
        ("bias", r"a, b: .*attention\.bias differs, and of its type, BOOL, no mean", "refused"),
        ("masked_bias", r"/a: .*masked_bias holds numbers that are not finite", "non-finite"),
    ],
)
def test_masks_that_differ_have_no_mean(name, says, status, prepared, tmp_path):
    folders = pair("gpt_neox hub", prepared, tmp_path)
    whole = f"gpt_neox.layers.1.attention.{name}"
    changed(folders[1], lambda weights: weights | {whole: torch.zeros_like(weights[whole])})
    record = fused(prepared, folders, tmp_path / "runs", method="uniform")
    assert record.status == status and re.search(says, record.reason), record.reason


def test_a_mixture_of_published_models_at_the_least_temperature_is_the_best(prepared, tmp_path):
    folders = pair("gpt_neo", prepared, tmp_path)
    asked = dict(method="mixture", weighting="softmax", temperature=5e-324)
    record = fused(prepared, folders, tmp_path / "runs", **asked)
    assert record.status == "ok", record.reason
    rows = sorted(record.result["members"], key=lambda row: row["choosing_loss"])
    assert [row["weight"] for row in rows] == [1, 0]
    assert record.result["loss"] == pytest.approx(rows[0]["loss"], abs=1e-5)
