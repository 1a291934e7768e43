"""Token files and the order in which training reads them.

Training text is a stream cut into windows of context + 1 tokens that overlap by one, so that every
token but the first is predicted once per epoch. The windows are shuffled by epoch with the run's
seed; which ones make up step s follows from s alone. So a resumed run reads what an uninterrupted
one would have read, and a branch what its trunk would have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from llama_bench.fields import UserError


class Tokens:
    """A memory-mapped token file, seen as windows of `context` + 1 tokens; of the first `unique`
    tokens alone where they are given."""

    def __init__(self, path: Path, token_width: int, context: int, unique: int | None = None):
        dtype = {2: "<u2", 4: "<u4"}[token_width]
        self.ids = np.memmap(path, dtype=dtype, mode="r")
        self.context = context
        if unique is not None and unique > len(self.ids):
            raise UserError(
                f"data.unique_tokens: {unique} are asked for, but {path} has {len(self.ids)}; "
                "ask for fewer or give more text"
            )
        if unique is not None and unique <= context:
            raise UserError(
                f"data.unique_tokens: {unique} are no whole window of train.context = {context} "
                "tokens and one; ask for more of them or shorten the context"
            )
        self.ids = self.ids[:unique]
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
    """Which windows step s takes: a pure function of seed and step.

    From the step `cooldown[0]` on what is still unread of the epoch is shuffled once more, with the
    seed `cooldown[1]`: branches of one trunk then read other text, and none that their trunk read.
    """

    def __init__(
        self, windows: int, batch: int, seed: int, cooldown: tuple[int, int] | None = None
    ):
        self.windows, self.batch, self.seed, self.cooldown = windows, batch, seed, cooldown
        self._epoch, self._shuffled = -1, np.empty(0, dtype=np.int64)

    def step(self, step: int) -> np.ndarray:
        """(batch,) int64 window numbers; a batch may span the end of an epoch, or several."""
        parts, position, end = [], step * self.batch, (step + 1) * self.batch
        while position < end:
            epoch, place = divmod(position, self.windows)
            parts.append(self._of_epoch(epoch)[place : place + end - position])
            position += len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _of_epoch(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            shuffled = generator.permutation(self.windows)
            if self.cooldown is not None:
                first, seed = self.cooldown
                unread = max(0, first * self.batch - epoch * self.windows)
                again = np.random.Generator(np.random.PCG64([self.seed, epoch, seed]))
                shuffled[unread:] = again.permutation(shuffled[unread:])
            self._epoch, self._shuffled = epoch, shuffled
        return self._shuffled


def batches(
    tokens: Tokens, order: Order, steps: range, share: slice, ahead: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The `share` of each step's batch. `ahead` of them are read by a thread before they are asked
    for, into pinned memory, from which a GPU copies while it computes; 0: none, read when asked."""
    if not ahead:
        for step in steps:
            yield tokens.take(order.step(step)[share])
        return
    pin = torch.cuda.is_available()
    with ThreadPoolExecutor(max_workers=1) as reader:

        def read(step: int):
            batch = tokens.take(order.step(step)[share])
            return tuple(part.pin_memory() if pin else part for part in batch)

        coming = deque(reader.submit(read, step) for step in steps[:ahead])
        for step in steps:
            if step + ahead in steps:
                coming.append(reader.submit(read, step + ahead))
            yield coming.popleft().result()
