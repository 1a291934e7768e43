"""What a probe times: prefill, decode and a training step, of a model of transformers.

Token counts are exact: tokens are drawn at random, their number is what was asked, and as nothing
is sampled no end of text cuts a run short. Prefill computes the logits of the last position only,
as generation does; a training step those of all. Prefill is bound by arithmetic; decode reads all
weights and the whole cache for one token of each sequence, and is bound by memory bandwidth.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Prefill:
    """One forward pass over batch x context tokens that fills a key-value cache."""

    def __init__(self, model: PreTrainedModel, batch: int, context: int, dtype: torch.dtype):
        self.model = model.to(dtype).eval()
        self.tokens = batch * context
        self.ids = random_tokens(model, batch, context)

    def prepare(self) -> None:
        self.cache = DynamicCache()

    def work(self) -> None:
        forward(self.model, self.ids, self.cache)

    @property
    def kv_bytes(self) -> int:
        return cache_bytes(self.cache)


class Decode:
    """One token per sequence and step, the last of which finds `context` - 1 tokens cached.

    A repeat is a window of steps, an eighth of the context and 8 at most, so that its mean depth
    lies within some per cent of `context`, and never beyond it.
    """

    def __init__(self, model: PreTrainedModel, batch: int, context: int, dtype: torch.dtype):
        self.model = model.to(dtype).eval()
        self.steps = max(1, min(8, context // 8))
        self.tokens = batch * self.steps
        self.filled = context - self.steps
        self.cache = DynamicCache()
        if self.filled:
            forward(self.model, random_tokens(model, batch, self.filled), self.cache)
        self.ids = random_tokens(model, batch, self.steps).split(1, dim=1)

    def prepare(self) -> None:
        beyond = self.cache.get_seq_length() - self.filled
        if beyond:
            self.cache.crop(-beyond)

    def work(self) -> None:
        for ids in self.ids:
            forward(self.model, ids, self.cache)

    @property
    def kv_bytes(self) -> int:
        return cache_bytes(self.cache)


class Train:
    """A full step: forward, backward, clipping, AdamW; bfloat16 is autocast over float32."""

    kv_bytes = None

    def __init__(self, model: PreTrainedModel, batch: int, context: int, dtype: torch.dtype):
        self.model = model.float().train()
        low = dtype == torch.bfloat16
        self.autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=low)
        self.tokens = batch * context
        self.ids = random_tokens(model, batch, context)
        self.targets = random_tokens(model, batch, context)
        # a rate that leaves the weights finite however long the probe goes on
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def prepare(self) -> None:
        pass

    def work(self) -> None:
        with self.autocast:
            logits = self.model(self.ids, use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), self.targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


PHASES = {"prefill": Prefill, "decode": Decode, "train": Train}


@torch.inference_mode()
def forward(model: PreTrainedModel, ids: torch.Tensor, cache: DynamicCache) -> None:
    """Tokens of shape (batch, new) after those in the cache, which grows by them."""
    model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)


def random_tokens(model: PreTrainedModel, batch: int, context: int) -> torch.Tensor:
    """Token ids of shape (batch, context), the same for the same shape."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (batch, context), generator=generator)
    return ids.to(model.device)


def cache_bytes(cache: DynamicCache) -> int:
    """Bytes of the keys and values that a cache holds, counted on its tensors."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
