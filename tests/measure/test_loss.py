"""Chunked cross-entropy: exact gradients, and logits that are never all there at once."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from llama_bench.measure import memory
from llama_bench.measure.training import loss


def drawn(rows, width, vocab, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocab, width, generator=generator, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(vocab, (rows,), generator=generator)


def chunked(hidden, weight, targets, scale=1.0, rows=3):
    return loss.ChunkedCrossEntropy.apply(
        hidden, weight, targets, scale, rows, hidden.dtype, loss.chunk
    )


def test_its_gradients_are_those_of_finite_differences():
    hidden, weight, targets = drawn(7, 4, 11)
    assert torch.autograd.gradcheck(lambda h, w: chunked(h, w, targets, 0.3), (hidden, weight))


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_it_equals_plain_cross_entropy(rows):
    hidden, weight, targets = drawn(7, 4, 11)
    plain = functional.cross_entropy(hidden @ weight.t(), targets)
    wanted = torch.autograd.grad(plain, (hidden, weight))
    ours = chunked(hidden, weight, targets, 1 / 7, rows)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-14)
    for got, want in zip(torch.autograd.grad(ours, (hidden, weight)), wanted, strict=True):
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-14)


def test_a_tied_table_gets_both_its_gradients():
    """The same weights look tokens up and multiply them."""
    _, table, targets = drawn(6, 4, 11)
    ids = torch.tensor([1, 1, 4, 0, 10, 3])
    plain = functional.cross_entropy(functional.embedding(ids, table).tanh() @ table.t(), targets)
    ours = chunked(functional.embedding(ids, table).tanh(), table, targets, 1 / 6)
    (want,), (got,) = torch.autograd.grad(plain, table), torch.autograd.grad(ours, table)
    assert torch.allclose(got, want, rtol=1e-12, atol=1e-14)


def test_logits_beyond_the_range_of_exp():
    hidden, weight, targets = drawn(5, 4, 11, torch.float32)
    far = (hidden * 1e4).detach().requires_grad_()
    plain = functional.cross_entropy(far @ weight.t(), targets, reduction="sum")
    ours = chunked(far, weight, targets)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    assert torch.isfinite(torch.autograd.grad(ours, far)[0]).all()


def test_bfloat16_products_have_a_float32_softmax():
    hidden, weight, targets = drawn(64, 16, 128, torch.float32)
    ours = loss.ChunkedCrossEntropy.apply(
        hidden, weight, targets, 1 / 64, 16, torch.bfloat16, loss.chunk
    )
    low = hidden.bfloat16() @ weight.bfloat16().t()
    assert ours.item() == pytest.approx(
        functional.cross_entropy(low.float(), targets).item(), rel=1e-6
    )
    gradient = torch.autograd.grad(ours, weight)[0]
    assert gradient.dtype == torch.float32


def test_each_tokens_loss_without_gradients():
    hidden, weight, targets = drawn(7, 4, 11, torch.float32)
    ours = loss.of_each_token(hidden, weight, targets, 3, torch.float32)
    plain = functional.cross_entropy(hidden @ weight.t(), targets, reduction="none")
    assert torch.allclose(ours, plain, rtol=1e-6)
    assert not ours.requires_grad


def test_it_takes_a_fraction_of_the_memory_of_all_logits():
    rows, vocab = 4096, 16_384
    hidden, weight, targets = drawn(rows, 32, vocab, torch.float32)
    meter = memory.meter(torch.device("cpu"))
    at_once = loss.rows_at_once(vocab, hidden.device)
    chunked(hidden, weight, targets, 1 / rows, at_once).backward()
    peak = meter.peaks()["peak_bytes"]
    if peak is None:
        pytest.skip("this system does not tell a peak")
    assert peak < rows * vocab * 4 / 8
