"""Shapes against the published sizes of real Llamas, and against their targets."""

import pytest
from pydantic import ValidationError

from llama_bench.shape import Shape, shape_of_size

# shape, vocabulary, all parameters as published (config.json and model cards on the Hub)
REAL = {
    "Llama-2-7B": (
        dict(layers=32, width=4096, heads=32, ffn_width=11008, tied_embeddings=False),
        32_000,
        6_738_415_616,
    ),
    "Llama-3-8B": (
        dict(layers=32, width=4096, heads=32, kv_heads=8, ffn_width=14336, tied_embeddings=False),
        128_256,
        8_030_261_248,
    ),
    "Llama-3.2-1B": (
        dict(layers=16, width=2048, heads=32, kv_heads=8, ffn_width=8192),
        128_256,
        1_235_814_400,
    ),
    "TinyLlama-1.1B": (
        dict(layers=22, width=2048, heads=32, kv_heads=4, ffn_width=5632, tied_embeddings=False),
        32_000,
        1_100_048_384,
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_counts_of_real_llamas(name):
    fields, vocab_size, published = REAL[name]
    assert Shape(**fields).parameters(vocab_size)["all"] == published


def test_the_head_multiplies_whether_tied_or_not():
    fields = dict(layers=2, width=64, heads=4)
    tied, untied = Shape(**fields), Shape(**fields, tied_embeddings=False)
    for key in ("without_embeddings", "in_matrix_products"):
        assert tied.parameters(1000)[key] == untied.parameters(1000)[key]
    assert untied.parameters(1000)["all"] - tied.parameters(1000)["all"] == 64_000


@pytest.mark.parametrize("exponent", [4.5, 5, 5.5, 6, 6.5, 7, 8, 8.5, 9, 9.5, 10, 11])
def test_a_target_is_met_by_a_sensible_shape(exponent):
    target = round(10**exponent)
    shape = shape_of_size(target)
    assert shape.size == pytest.approx(target, rel=0.1)
    assert 2.2 <= shape.ffn_width / shape.width <= 3.3
    assert shape.head_size in (16, 32, 64, 128)
    assert shape.width % 16 == 0
    assert 8 <= shape.width / shape.layers <= 180


def test_targets_in_order_give_sizes_in_order():
    sizes = [shape_of_size(round(10 ** (4.5 + step / 10))).size for step in range(60)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 60


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        (dict(layers=2, width=100, heads=3), "heads"),
        (dict(layers=2, width=96, heads=6, kv_heads=4), "kv_heads"),
        (dict(layers=2, width=9, heads=3), "heads"),
        (dict(layers=0, width=64, heads=4), "layers"),
    ],
)
def test_impossible_shapes_are_refused_by_key(fields, key):
    with pytest.raises(ValidationError, match=key):
        Shape(**fields)


def test_flops_are_six_per_weight_and_attention():
    shape = Shape(layers=3, width=64, heads=4)
    weights = shape.parameters(500)["in_matrix_products"]
    assert shape.flops_per_token(500, context=128) == 6 * weights + 6 * 3 * 64 * 128
