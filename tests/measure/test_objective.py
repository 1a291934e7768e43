"""The training's own forward pass is that of the model it trains."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from llama_bench.measure import model
from llama_bench.measure.training.objective import Objective, decoder_layer
from llama_bench.shape import Shape, shape_of_size

VOCAB, CONTEXT = 512, 64
SHAPES = {
    "tied": Shape(layers=2, width=32, heads=4),
    "untied": Shape(layers=2, width=32, heads=4, tied_embeddings=False),
    "grouped-query": Shape(layers=3, width=64, heads=8, kv_heads=2, ffn_width=160),
    "of a size": shape_of_size(115_000),
}


def built(shape):
    """Wider weights than at the start of a training, so that every part of the sum counts."""
    made = model.build(shape, VOCAB, CONTEXT, 0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(4.0 if weight.dim() == 2 else 1.1)
    return made


def batch(tokens=CONTEXT):
    drawn = torch.randint(VOCAB, (3, tokens + 1), generator=torch.Generator().manual_seed(0))
    return drawn[:, :-1], drawn[:, 1:]


@pytest.mark.parametrize("tokens", [CONTEXT, 17])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_are_the_models(shape, tokens):
    made, (inputs, _) = built(shape), batch(tokens)
    with torch.no_grad():
        hidden = Objective(made, torch.float32).hidden(inputs, decoder_layer)
        ours, theirs = made.lm_head(hidden), made(inputs).logits
    assert theirs.std() > 0.4
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradients_are_the_models(shape, checkpointed):
    ours, theirs, (inputs, targets) = built(shape), built(shape), batch()
    logits = theirs(inputs, use_cache=False).logits
    plain = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    plain.backward()
    objective = Objective(ours, torch.float32)
    objective.checkpointed = checkpointed
    loss = objective(inputs, targets, 1 / targets.numel())
    loss.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    for name, weight in ours.named_parameters():
        wanted = theirs.get_parameter(name).grad
        assert (weight.grad - wanted).norm() < 1e-5 * wanted.norm(), name


def test_bfloat16_is_the_models_under_autocast():
    made, (inputs, targets) = built(SHAPES["of a size"]), batch()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = made(inputs, use_cache=False).logits.float()
        theirs = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        ours = Objective(made, torch.bfloat16)(inputs, targets, None).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=2e-3)
