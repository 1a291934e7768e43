"""The output head, a few places at a time: the same logits, whatever the model makes of them."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
)

from llama_bench.measure.ensemble_model import EnsembleConfig, EnsembleForCausalLM
from llama_bench.measure.evaluation import heads

SMALL = dict(
    vocab_size=97, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
)  # fmt: skip
CONFIGS = {
    "plain": LlamaConfig(**SMALL),
    "its logits scaled": CohereConfig(**SMALL, logit_scale=0.3),
    "its logits capped": Gemma2Config(**SMALL, final_logit_softcapping=0.05),
    "a head of another name": GPTNeoXConfig(**SMALL),
    "layers within a decoder": OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16),
}


def ensemble_of_two():
    configs = [LlamaConfig(**SMALL), LlamaConfig(**SMALL | {"hidden_size": 32, "head_dim": 16})]
    members = [AutoModelForCausalLM.from_config(config) for config in configs]
    config = EnsembleConfig(
        [config.to_dict() for config in configs], method="mixture", weights=[0.7, 0.3]
    )
    model = EnsembleForCausalLM(config)
    for own, member in zip(model.members, members, strict=True):
        own.load_state_dict(member.state_dict())
    return model


@pytest.mark.parametrize("kind", [*CONFIGS, "an ensemble"])
@torch.inference_mode()
def test_logits_of_a_few_places_at_a_time_are_the_models_own(kind):
    torch.manual_seed(0)
    config = CONFIGS.get(kind)
    model = AutoModelForCausalLM.from_config(config) if config else ensemble_of_two()
    model.eval()
    ids = torch.randint(97, (3, 20))
    expected = model(input_ids=ids).logits.flatten(0, 1)
    places = torch.tensor([0, 3, 4, 19, 20, 33, 41, 42, 43, 59])
    parts = list(heads.logits(model, places, 4, lambda: None, input_ids=ids))
    assert [len(part) for part in parts] == [4, 4, 2]
    torch.testing.assert_close(torch.cat(parts), expected[places], rtol=1e-6, atol=1e-6)
    again = model(input_ids=ids).logits.flatten(0, 1)
    torch.testing.assert_close(again, expected)  # nothing of it stays on the model


def test_layers_are_passed_once_and_left_alone_where_the_reader_stops_half_way():
    model = AutoModelForCausalLM.from_config(CONFIGS["plain"]).eval()
    ids, passed = torch.randint(97, (1, 30)), []
    model.model.layers[0].register_forward_hook(lambda *given: passed.append(1))
    with torch.inference_mode():
        some = heads.logits(model, torch.arange(30), 4, lambda: None, input_ids=ids)
        assert (len(next(some)), len(next(some)), passed) == (4, 4, [1])
        some.close()
        assert model(input_ids=ids).logits.shape == (1, 30, 97)
    assert "forward" not in vars(model.model) and len(passed) == 2
