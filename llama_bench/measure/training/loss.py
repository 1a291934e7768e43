"""Cross-entropy over a vocabulary without ever holding all its logits.

Logits are the largest tensor of a small model's training: tokens x vocabulary, several times over.
Here the hidden states are taken some rows at a time, and the gradients with respect to them and to
the head's weight are computed along with the loss, so that a chunk's logits are forgotten before
the next one's exist and nothing is computed twice: the idea of Liger Kernel (Hsu et al. 2024, arXiv
2410.10989, section 3.2); Wijmans et al. 2024 (Cut Cross-Entropy, arXiv 2411.09009) go further and
never write them to memory at all. The gradients are exact: softmax less one at the target.
"""

from __future__ import annotations

import torch

LOGITS_IN_CACHE = 2**17  # a chunk on a CPU: half a megabyte, which its second-level cache holds
LOGITS_ON_GPU = 2**26  # a quarter of a gigabyte: products large enough to fill the device


def rows_at_once(vocab_size: int, device: torch.device) -> int:
    return max(1, (LOGITS_ON_GPU if device.type == "cuda" else LOGITS_IN_CACHE) // vocab_size)


def chunk(hidden, weight, targets, scale: float, weight_gradient):
    """Loss (sum x scale) of some rows, and its gradient with respect to `hidden`; that with respect
    to `weight` is added to `weight_gradient`. Softmax is in float32 at least."""
    logits = hidden @ weight.t()
    wide = logits.double() if logits.dtype == torch.float64 else logits.float()
    highest = wide.amax(1, keepdim=True)
    target = wide.gather(1, targets)
    shares = (wide - highest).exp_()
    total = shares.sum(1, keepdim=True)
    loss = (total.log() + highest - target).sum() * scale
    shares.mul_(scale / total)
    shares.scatter_add_(1, targets, torch.full_like(total, -scale))
    low = shares.to(hidden.dtype)
    if low.dtype == weight_gradient.dtype:
        weight_gradient.addmm_(low.t(), hidden)
    else:
        weight_gradient.add_(low.t() @ hidden)
    return loss, low @ weight


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies x `scale`, of hidden states (rows, width) under a head's weight
    (vocabulary, width). `dtype` is that of the products."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, scale, rows, dtype, work):
        low_hidden, low_weight = hidden.to(dtype), weight.to(dtype)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight)
        losses = []
        for first in range(0, hidden.shape[0], rows):
            part = slice(first, first + rows)
            loss, hidden_gradient[part] = work(
                low_hidden[part], low_weight, targets[part, None], scale, weight_gradient
            )
            losses.append(loss)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx, gradient):
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return (hidden_gradient * gradient, weight_gradient * gradient, *[None] * 5)


@torch.no_grad()
def of_each_token(hidden, weight, targets, rows: int, dtype: torch.dtype) -> torch.Tensor:
    """Cross-entropy of every row, nats; no gradients."""
    weight = weight.to(dtype)
    losses = []
    for first in range(0, hidden.shape[0], rows):
        logits = (hidden[first : first + rows].to(dtype) @ weight.t()).float()
        target = logits.gather(1, targets[first : first + rows, None])
        losses.append(logits.logsumexp(1) - target[:, 0])
    return torch.cat(losses)
