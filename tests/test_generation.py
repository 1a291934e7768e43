"""Settings of generation in a suite: one spelling, and nothing that is dropped without a word."""

import pytest

from llama_bench.sections.generation import Generation
from llama_bench.study import UserError, load


def study(generation, **evaluate):
    suites = {"x": {"tasks": ["heldout"], "generation": generation}}
    return load(
        {"models": {"train": [{"size": "50k"}]}, "evaluate": {"suites": suites, **evaluate}}
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"repetition_penlty": 1.1}, ["'repetition_penlty'", "'repetition_penalty'"]),
        ({"max_length": 100}, ["max_length", "max_gen_toks"]),
        ({"max_new_tokens": 1, "max_tokens": 2}, ["max_new_tokens", "max_tokens", "max_gen_toks"]),
        ({"top_p": 0.9}, ["top_p", "do_sample: true"]),
        ({"do_sample": False, "temperature": 0.7}, ["temperature", "do_sample: true"]),
        ({"do_sample": True, "temperature": 0}, ["temperature above 0"]),
        ({"temperature": 1e-42}, ["temperature", "1e-42", "0.01"]),
        ({"max_gen_toks": 0}, ["max_gen_toks"]),
        ({"until": 3}, ["until"]),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(given, says):
    with pytest.raises(UserError) as caught:
        study(given)
    message = str(caught.value)
    assert "evaluate.suites.x.generation" in message and len(message.splitlines()) == 1
    assert all(text in message for text in says), message


def test_what_a_server_does_not_do_is_refused_before_it_is_started():
    asked = {"do_sample": True, "temperature": 0.7, "top_k": 5, "min_p": 0.1, "until": "\n"}
    assert study(asked, engine="vllm").runs
    with pytest.raises(UserError, match="vllm does not do no_repeat_ngram_size, num_beams"):
        study({"num_beams": 4, "no_repeat_ngram_size": 2}, engine="vllm")


def test_one_setting_has_one_spelling_and_makes_one_run():
    ids = [
        set(study(given).runs)
        for given in (
            {"max_new_tokens": "16", "until": "\n", "temperature": "7e-1"},
            {"max_gen_toks": 16, "until": ["\n"], "temperature": 0.7},
            {"max_gen_toks": 16, "until": ["\n"], "temperature": 0.6},
        )
    ]
    assert ids[0] == ids[1] != ids[2]


def test_every_setting_is_one_of_transformers():
    from transformers import GenerationConfig

    own = {"max_gen_toks", "until"}
    assert set(Generation.model_fields) - own <= set(vars(GenerationConfig()))
