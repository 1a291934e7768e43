"""What a probe times: prefill, decode and a training step, of a model of transformers.

Token counts are exact: tokens are drawn at random, their number is what was asked, and as nothing
is sampled no end of text cuts a run short. Prefill computes the logits of the last position only,
as generation does; a training step those of all. Prefill is bound by arithmetic; decode reads all
weights and the whole cache for one token of each sequence, and is bound by memory bandwidth.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import Cache, DynamicCache, LlamaForCausalLM, PreTrainedModel

from llama_bench.measure.training.objective import Objective

FILL_TOKENS = 2048  # of all sequences together in one pass: a GPU is full, activations are small


class Prefill:
    """One forward pass over batch x context tokens that fills a key-value cache."""

    def __init__(self, model: PreTrainedModel, batch: int, context: int):
        self.model = model.eval()
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

    def __init__(self, model: PreTrainedModel, batch: int, context: int):
        self.model = model.eval()
        self.steps = window(context)
        self.tokens = batch * self.steps
        self.filled = context - self.steps
        self.cache = DynamicCache()
        fill(self.model, random_tokens(model, batch, self.filled), self.cache)
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
    """A full step: forward, backward, clipping, AdamW; bfloat16 multiplies in 16 bits, weights
    stay in 32. A Llama is computed as `train` computes it; another model as transformers does."""

    kv_bytes = None

    def __init__(self, model: PreTrainedModel, batch: int, context: int, dtype: torch.dtype):
        self.model = cast(model, torch.float32).train()
        self.tokens = batch * context
        self.ids = random_tokens(model, batch, context)
        self.targets = random_tokens(model, batch, context)
        self.dtype = dtype
        self.objective = None
        if is_plain_llama(model):
            self.objective = Objective(model, dtype).to(model.device).train()
        # a rate that leaves the weights finite however long the probe goes on
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    @property
    def bytes_held(self) -> int:
        """Weights in float32, their gradients, and two moments."""
        return 4 * sum(weight.nbytes for weight in self.model.parameters())

    def prepare(self) -> None:
        pass

    def work(self) -> None:
        self._loss().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _loss(self) -> torch.Tensor:
        if self.objective is not None:
            return self.objective(self.ids, self.targets, 1 / self.tokens)
        low = self.dtype == torch.bfloat16
        with torch.autocast(self.ids.device.type, torch.bfloat16, enabled=low):
            logits = self.model(self.ids, use_cache=False).logits
        return functional.cross_entropy(logits.float().flatten(0, 1), self.targets.flatten())


class Sampling:
    """What generation adds to a step, and the phases leave out: a softmax over the vocabulary and
    one draw for each sequence."""

    def __init__(self, model: PreTrainedModel, batch: int):
        self.logits = torch.randn(batch, model.config.vocab_size, device=model.device)

    def prepare(self) -> None:
        pass

    @torch.inference_mode()
    def work(self) -> None:
        torch.multinomial(torch.softmax(self.logits, dim=-1), 1)


def window(context: int) -> int:
    """Decoding steps of one repeat."""
    return max(1, min(8, context // 8))


def is_plain_llama(model: PreTrainedModel) -> bool:
    """Whether `train` could train it: a Llama without biases."""
    biased = getattr(model.config, "attention_bias", False) or getattr(
        model.config, "mlp_bias", False
    )
    return isinstance(model, LlamaForCausalLM) and not biased


@torch.inference_mode()
def forward(model: PreTrainedModel, ids: torch.Tensor, cache: Cache) -> torch.Tensor:
    """Tokens of shape (batch, new) after those in the cache, which grows by them; the logits of
    the last."""
    return model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits


def fill(model: PreTrainedModel, ids: torch.Tensor, cache: Cache) -> None:
    """Tokens of shape (batch, new) into the cache, some columns at a time: in one pass the
    activations would be prefill's, and it, not decode, would say what fits."""
    for part in ids.split(max(1, FILL_TOKENS // len(ids)), dim=1) if ids.numel() else ():
        forward(model, part, cache)


def cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Weights in `dtype`; buffers (the angles of rotary embeddings) keep their own."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def random_tokens(model: PreTrainedModel, batch: int, context: int) -> torch.Tensor:
    """Token ids of shape (batch, context), the same for the same shape."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (batch, context), generator=generator)
    return ids.to(model.device)


def cache_bytes(cache: Cache) -> int:
    """Bytes of the keys and values that a cache holds, counted on its tensors."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
