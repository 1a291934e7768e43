"""The loss on held-out text: on windows evenly spread over it, the same for every run.

Where a branch leaves its trunk two more losses are asked for, and of a short training they would
take more time than is worth while. They are measured on a few of the windows; what they differ
there from the end's loss is added to the end's on all. Losses of two states of one training go
together from window to window, so that the difference is known far better than either.
"""

from __future__ import annotations

import contextlib
import math

import numpy as np
import torch

from llama_bench.measure.training import parallel
from llama_bench.measure.training.engine import Engine
from llama_bench.measure.training.tokens import Tokens

VALIDATION_TOKENS = 40_960
WINDOWS_AT_ONCE = 8
FEW = 8  # one window in so many


def judged(windows: int, context: int) -> np.ndarray:
    """Numbers of the windows that a loss is measured on, of so many there are: evenly spread."""
    wanted = max(1, min(windows, VALIDATION_TOKENS // context))
    return np.linspace(0, windows - 1, wanted).astype(np.int64)


class Validation:
    """Windows of held-out text that an engine is asked about; each process takes them all."""

    def __init__(self, tokens: Tokens):
        self._tokens = tokens
        self._windows = judged(tokens.windows, tokens.context)

    def losses(self, engine: Engine, every: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Loss of every held-out token, nats, and the tokens: each (windows, context)."""
        losses, targets = [], []
        windows = self._windows[::every]
        for first in range(0, len(windows), WINDOWS_AT_ONCE):
            batch = self._tokens.take(windows[first : first + WINDOWS_AT_ONCE])
            losses.append(engine.losses(batch))
            targets.append(batch[1].numpy())
        return torch.cat(losses).double().cpu().numpy(), np.concatenate(targets)

    def loss_of_few(self, engine: Engine) -> float:
        return float(self.losses(engine, FEW)[0].mean())

    def loss_of_mean(self, engine: Engine) -> float:
        """Of the running mean of the weights instead of the weights, on few windows."""
        with _mean_in_place(engine):
            return self.loss_of_few(engine)


def of_all(of_few: float | None, losses: np.ndarray) -> float | None:
    """A loss on few windows as one on all, by what another's `losses` (windows, context) are."""
    if of_few is None:
        return None
    return of_few + float(losses.mean() - losses[::FEW].mean())


@contextlib.contextmanager
@torch.no_grad()
def _mean_in_place(engine: Engine):
    weights = [parallel.own(weight) for weight in engine.weights.values()]
    kept = [weight.clone() for weight in weights]
    torch._foreach_copy_(weights, [parallel.own(tensor) for tensor in engine.mean.values()])
    try:
        yield
    finally:
        torch._foreach_copy_(weights, kept)


def quality(losses: tuple[np.ndarray, np.ndarray], token_bytes: np.ndarray) -> dict:
    """Nats per token over all, and bits per byte of text: tokens that are no text left out."""
    nats, targets = losses
    lengths = token_bytes[targets]
    text = lengths > 0
    bits = float(nats[text].sum() / math.log(2) / lengths.sum())
    return {
        "loss": float(nats.mean()),
        "loss_standard_error": float(nats.mean(axis=1).std(ddof=1) / math.sqrt(len(nats)))
        if len(nats) > 1
        else None,
        "bits_per_byte": bits,
        "validation_tokens": int(nats.size),
    }
