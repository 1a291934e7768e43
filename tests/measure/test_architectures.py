"""Choices that share a context, of every kind of model: the numbers of each sequence alone."""

import random

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from llama_bench.measure.evaluation.lm import CausalLM
from llama_bench.measure.evaluation.stems import is_plain

WINDOW, IDS = 64, 500
WIDE = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
LLAMA = {**WIDE, "intermediate_size": 64, "num_key_value_heads": 2}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}

# whether they share rows, and their shapes
KINDS = {
    "llama": (True, "llama", LLAMA),
    "llama, dynamic rope": (
        True,
        "llama",
        {**LLAMA, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "mistral": (False, "mistral", {**LLAMA, "sliding_window": 16}),
    "gpt-neox": (True, "gpt_neox", {**WIDE, "intermediate_size": 64}),
    "qwen2": (True, "qwen2", LLAMA),
    "gemma": (True, "gemma", {**LLAMA, "head_dim": 8}),
    "olmo-2": (True, "olmo2", LLAMA),
    "gpt-2": (True, "gpt2", {**GPT, "n_positions": WINDOW}),
    "gpt-j": (True, "gptj", {**GPT, "n_positions": WINDOW, "rotary_dim": 4}),
    "opt": (True, "opt", {**WIDE, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "bloom": (False, "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "seq_length": WINDOW}),
    "mpt": (False, "mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": WINDOW}),
    "gpt-neo": (
        False,
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 16,
        },
    ),
    "falcon, alibi": (False, "falcon", {**WIDE, "alibi": True, "new_decoder_architecture": False}),
    "falcon": (True, "falcon", {**WIDE, "alibi": False}),
    "phi-3, longrope": (
        False,
        "phi3",
        {**LLAMA, "rope_scaling": LONG, "original_max_position_embeddings": 24},
    ),
}


def built(kind, shape):
    torch.manual_seed(0)
    known = AutoConfig.for_model(kind)
    own = {"vocab_size": IDS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if hasattr(known, "max_position_embeddings"):
        own["max_position_embeddings"] = WINDOW
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**own, **shape}))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)  # so that what a token sees shows
    return model.eval()


def questions(rng):
    """(request, ids, start): rows of unlike length, all but the last longer than the window."""
    found = []
    for context, choices, length in ((40, 4, 24), (36, 7, 20), (33, 5, 15), (10, 2, 4)):
        stem = [rng.randrange(3, IDS) for _ in range(context)]
        for _ in range(choices):
            own = [rng.randrange(3, IDS) for _ in range(length)]
            found.append((len(found), stem + own, context))
    return found


@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_those_of_each_sequence_alone(name):
    shares, kind, shape = KINDS[name]
    model = built(kind, shape)
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # is asked nothing
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=WINDOW)
    lm = CausalLM(model, tokenizer)
    assert lm.window == WINDOW and is_plain(model) is shares
    asked = questions(random.Random(0))
    answers = {number: rest for number, *rest in lm.score(asked)}
    assert len(answers) == len(asked)
    for number, ids, start in asked:
        with torch.no_grad():
            table = model(torch.tensor([ids[:-1]])).logits[0, start - 1 :].double().log_softmax(-1)
        wanted = torch.tensor(ids[start:])
        total = table.gather(1, wanted[:, None]).sum().item()
        greedy = bool((table.argmax(-1) == wanted).all())
        assert answers[number] == [pytest.approx(total, rel=1e-4), greedy], number
