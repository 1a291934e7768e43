"""Text token by token: each row's own, whichever rows it stands beside and when they leave."""

import random

import pytest
import torch
from test_architectures import IDS, KINDS, WINDOW, built
from tiny_llama import adapter, checkpoint
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llama_bench.measure.evaluation import writing
from llama_bench.measure.evaluation.generation import continue_text, merged
from llama_bench.measure.evaluation.lm import CausalLM

NEW = 16


def words():
    """A tokenizer of numbered words: every fourth or so has a 7 in it, the stop string here."""
    known = {"[UNK]": 0, "[BOS]": 1, "[EOS]": 2} | {str(number): number for number in range(3, IDS)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=WINDOW, pad_token="[UNK]", **special
    )


def by_hand(model, tokenizer, prompt, stop, least=0):
    """The likeliest tokens one by one, each from a pass over all that is there; and how many."""
    ids = list(prompt)
    while len(ids) < len(prompt) + NEW:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        if len(ids) < len(prompt) + least:
            logits[2] = -torch.inf
        ids.append(logits.argmax().item())
        if ids[-1] == 2 or stop in tokenizer.decode(ids[len(prompt) :]):
            break
    text = tokenizer.decode(ids, skip_special_tokens=True)
    given = tokenizer.decode(prompt, skip_special_tokens=True)
    return text[len(given) :].split(stop)[0], len(ids) - len(prompt)


def asked_of(rng, many=11):
    return [[rng.randrange(3, IDS) for _ in range(rng.randrange(3, 30))] for _ in range(many)]


# how a cache goes past the length where LongRoPE turns all anew is not ours to say
@pytest.mark.parametrize("name", [name for name in KINDS if "longrope" not in name])
def test_texts_are_those_of_each_prompt_alone(name):
    _, kind, shape = KINDS[name]
    model, tokenizer = built(kind, shape), words()
    lm = CausalLM(model, tokenizer)
    prompts = asked_of(random.Random(0))
    settings = merged({"until": ["7"], "max_gen_toks": NEW, "do_sample": False}, {})
    expected = [by_hand(model, tokenizer, prompt, "7") for prompt in prompts]
    assert len({length for _, length in expected}) > 1, "they end at different times"
    found = continue_text(lm, prompts, settings)
    assert [text for text, _ in found] == [text for text, _ in expected]


@pytest.fixture
def model():
    """One that ends its texts by itself now and then."""
    model = built("llama", KINDS["llama"][2])
    with torch.no_grad():
        model.get_output_embeddings().weight[2] *= 5
    return model


@pytest.mark.parametrize("stop", ["7", "no such word"])
def test_rows_that_are_done_leave(model, stop):
    tokenizer, passed = words(), []
    prompts = asked_of(random.Random(1), 32)
    lengths = [by_hand(model, tokenizer, prompt, stop)[1] for prompt in prompts]
    model.register_forward_pre_hook(
        lambda _, args, given: passed.append(len(given["input_ids"])), with_kwargs=True
    )
    settings = merged({"until": [stop], "max_gen_toks": NEW, "do_sample": False}, {})
    continue_text(CausalLM(model, tokenizer), prompts, settings)
    going = [sum(length > step for length in lengths) for step in range(max(lengths))]
    assert len(passed) == len(going), "nothing is passed twice"
    assert passed[-1] < len(prompts)
    for own, rows in zip(going, passed, strict=True):
        assert own <= rows <= max(own, 2 * own - 1), (going, passed)


@pytest.mark.parametrize("least", [1, 6])
def test_what_counts_new_tokens_counts_them_once(model, least):
    tokenizer = words()
    prompts = asked_of(random.Random(2))
    settings = {"until": ["no such word"], "max_gen_toks": NEW, "min_new_tokens": least}
    found = continue_text(CausalLM(model, tokenizer), prompts, merged(settings, {}))
    expected = [by_hand(model, tokenizer, prompt, "no such word", least) for prompt in prompts]
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert {least < length < NEW for _, length in expected} == {True, False}


def test_a_text_ends_with_the_tokenizers_end_and_with_the_models(model):
    """A model tuned to chat may know one, its tokenizer the other."""
    tokenizer = words()
    prompts = asked_of(random.Random(3))
    settings = merged({"max_gen_toks": NEW, "do_sample": False}, {})
    lm = CausalLM(model, tokenizer)
    expected = continue_text(lm, prompts, settings)
    model.generation_config.eos_token_id = [4]
    assert continue_text(lm, prompts, settings) == expected
    tokenizer.eos_token = "3"
    model.generation_config.eos_token_id = [2, 4]
    assert continue_text(lm, prompts, settings) == expected
    model.generation_config.eos_token_id = None
    assert continue_text(lm, prompts, settings) != expected, "3 is no end here"


def test_beams_of_the_models_own_settings_are_beams(model):
    tokenizer = words()
    prompts = asked_of(random.Random(4))
    asked = {"until": ["7"], "max_gen_toks": NEW, "do_sample": False}
    lm = CausalLM(model, tokenizer)
    expected = continue_text(lm, prompts, merged(asked | {"num_beams": 3}, {}))
    assert expected != continue_text(lm, prompts, merged(asked, {}))
    model.generation_config.num_beams = 3
    assert continue_text(lm, prompts, merged(asked, {})) == expected


def test_tokens_are_passed_once_whatever_the_checkpoint_says_of_a_cache(model):
    """Checkpoints of trainings that recompute activations say that there is none."""
    model.generation_config.use_cache = model.config.use_cache = False
    passed = []
    model.register_forward_pre_hook(
        lambda _, args, given: passed.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    settings = merged({"max_gen_toks": NEW, "do_sample": False}, {})
    continue_text(CausalLM(model, words()), asked_of(random.Random(5)), settings)
    assert set(passed[1:]) == {1}


def test_stop_strings_of_the_models_own_settings_end_a_text(prepared, tmp_path):
    lm = adapter(checkpoint(tmp_path / "model", prepared))
    prompts = [lm.encoding.encode(text) for text in ("import ", "def", "class ", "for ")]
    asked = {"max_gen_toks": NEW, "do_sample": False}
    free = continue_text(lm, prompts, merged(asked, {}))
    stop = free[0][0].strip()[0]
    expected = continue_text(lm, prompts, merged(asked | {"until": [stop]}, {}))
    lm.model.generation_config.stop_strings = [stop]
    found = continue_text(lm, prompts, merged(asked, {}))
    assert found != free
    assert [text.split(stop)[0] for text, _ in found] == [text for text, _ in expected]


@pytest.mark.parametrize("bos", ["once", "stock"])
def test_an_answer_that_ends_within_a_character_keeps_the_prompt_out(shared, bos):
    """Bytes that make no character are shown as such, all that stand together: those of the prompt
    with them, were it not decoded by itself."""
    lm = adapter(shared("models", "stories260K"))
    lm.encoding.bos = bos
    prompt = lm.encoding.encode("I have a \U0001f600")
    part = lm.tokenizer.convert_tokens_to_ids(["<0xF0>", "<0x9F>"])
    assert None not in part and lm.tokenizer.unk_token_id not in part
    (text,) = writing._decoded(lm, [prompt], [part])
    assert text == "\ufffd\ufffd"


def test_what_is_drawn_is_not_left(prepared, tmp_path):
    """Which tokens are drawn depends on the rows beside them."""
    lm = adapter(checkpoint(tmp_path / "model", prepared))
    settings = merged({"until": ["e"], "max_gen_toks": 8, "temperature": 1.0}, {})
    prompts = [lm.encoding.encode(text) for text in ("import ", "def", "class ", "for ")]
    torch.manual_seed(0)
    found = continue_text(lm, prompts, settings)
    torch.manual_seed(0)
    length = max(map(len, prompts))
    ids = torch.tensor([[lm.encoding.start] * (length - len(each)) + each for each in prompts])
    seen = torch.tensor([[0] * (length - len(each)) + [1] * len(each) for each in prompts])
    out = lm.model.generate(
        ids, attention_mask=seen, max_new_tokens=8, do_sample=True, temperature=1.0
    )
    texts = lm.tokenizer.batch_decode(out, skip_special_tokens=True)
    starts = lm.tokenizer.batch_decode(prompts, skip_special_tokens=True)
    drawn = [text[len(start) :] for text, start in zip(texts, starts, strict=True)]
    assert [text for text, _ in found] == [text.split("e")[0] for text in drawn]
