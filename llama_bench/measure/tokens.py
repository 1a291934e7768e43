"""Token files and the order in which training reads them.

Training text is a stream cut into windows of context + 1 tokens that overlap by one, so that every
token but the first is predicted once per epoch. The windows are shuffled by epoch with the run's
seed; which ones make up step s follows from s alone. So a resumed run reads what an uninterrupted
one would have read, and a branch what its trunk would have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from llama_bench.fields import UserError


class Tokens:
    """A memory-mapped token file, seen as windows of `context` + 1 tokens."""

    def __init__(self, path: Path, token_width: int, context: int):
        dtype = {2: "<u2", 4: "<u4"}[token_width]
        self.ids = np.memmap(path, dtype=dtype, mode="r")
        self.context = context
        self.windows = (len(self.ids) - 1) // context
        if self.windows < 1:
            raise UserError(
                f"train.context: {context} tokens are longer than {path.name} "
                f"({len(self.ids)} tokens); shorten the context or give more text"
            )

    def take(self, windows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, each (windows, context) int64: the targets are one token later."""
        starts = windows.astype(np.int64)[:, None] * self.context
        ids = self.ids[starts + np.arange(self.context + 1)].astype(np.int64)
        batch = torch.from_numpy(ids)
        return batch[:, :-1], batch[:, 1:]


class Order:
    """Which windows step s takes: a pure function of seed and step."""

    def __init__(self, windows: int, batch: int, seed: int):
        self.windows, self.batch, self.seed = windows, batch, seed
        self._epoch, self._shuffled = -1, np.empty(0, dtype=np.int64)

    def step(self, step: int) -> np.ndarray:
        """(batch,) int64 window numbers; a batch may span the end of an epoch."""
        first = step * self.batch
        return np.array([self._window(first + offset) for offset in range(self.batch)])

    def _window(self, position: int) -> int:
        epoch, place = divmod(position, self.windows)
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._epoch, self._shuffled = epoch, generator.permutation(self.windows)
        return self._shuffled[place]
