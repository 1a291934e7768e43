"""One model over several devices: its parts are moved to by accelerate's hooks, here real ones over
the processor and the disk, and it answers as the whole does. (GPUs are not needed.)"""

from __future__ import annotations

import pytest
import torch
from tiny_llama import CONTEXT, SHAPE
from transformers import AutoTokenizer

from llama_bench.measure import model
from llama_bench.measure.evaluation import served_lm
from llama_bench.measure.evaluation.lm import CausalLM
from llama_bench.measure.evaluation.loading import Found

PARTS = ("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb")
ON_DISK = {"model.layers.1": "disk"}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def both(request, tmp_path, prepared):
    """Adapters of one model, whole and spread."""
    shape = SHAPE.model_copy(update={"tied_embeddings": request.param})
    built = model.build(shape, 512, CONTEXT, 0)
    with torch.no_grad():
        for weight in built.parameters():
            if weight.dim() == 2:
                weight.mul_(4.0)
    model.save(built, tmp_path)
    placed = dict.fromkeys(PARTS, "cpu") | ON_DISK
    placed["lm_head"] = "cpu" if request.param else "disk"
    tokenizer = AutoTokenizer.from_pretrained(prepared.parent / "tokenizer")
    models = model.load(tmp_path).eval(), model.load(tmp_path, placed=placed).eval()
    return [CausalLM(each, tokenizer) for each in models]


def test_a_spread_model_answers_as_the_whole(both):
    """Choices with a context in common, many behind one stem, some alone; and written text."""
    whole, spread = both
    away = [name for name, w in spread.model.named_parameters() if w.device.type == "meta"]
    assert any("layers.1" in name for name in away), "it is not spread"
    ids = torch.randint(512, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    asked = [(n, ids[:300] + ids[n : n + 20], 305) for n in range(40)]
    asked += [(40 + n, ids[n : n + 9], 5) for n in range(5)]
    answers = [sorted(lm.score(asked)) for lm in both]
    for mine, theirs in zip(*answers, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-6)
    prompts = [ids[:7], ids[3:20]]
    assert spread.write(prompts, 6, [], do_sample=False) == whole.write(
        prompts, 6, [], do_sample=False
    )
    assert model.count(spread.model) == model.count(whole.model)


def test_a_server_is_told_over_how_many(tmp_path):
    found = Found("llamas/small", tmp_path, "c0ffee", False)
    words = served_lm.arguments(found, "bfloat16", 512, 4)
    assert words[words.index("--tensor-parallel-size") + 1] == "4"
    assert words[words.index("--model") + 1] == str(tmp_path), "the very commit that is recorded"
    assert words[words.index("--load-format") + 1] == "safetensors"
    assert "--tensor-parallel-size" not in served_lm.arguments(found, "bfloat16", 512, 1)
