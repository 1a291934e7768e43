"""Decoding as an inference engine does it: a cache of fixed size, and a step compiled once.

A step of a small batch is many small operations, and eager PyTorch spends longer on starting them
than a GPU on doing them. torch.compile fuses them, and on a GPU replays them as one CUDA graph
(mode reduce-overhead), for which nothing may change its place: so the cache is transformers'
StaticCache. Prefill stays eager; it is bound by its products.
"""

from __future__ import annotations

import os
import shutil
import time

import torch
from transformers import PreTrainedModel, StaticCache

from llama_bench.measure import memory
from llama_bench.measure import model as models
from llama_bench.measure.probing import devices, phases
from llama_bench.records import Refusal

SETTLING_STEPS = 3  # a CUDA graph is recorded at the second call, and replayed from the third


class Prefill(phases.Prefill):
    """One forward pass over batch x context tokens into a static cache of that length."""

    def __init__(self, model: PreTrainedModel, batch: int, context: int):
        super().__init__(model, batch, context)
        self.cache = _started(model, batch, context)

    def prepare(self) -> None:
        _cut(self.cache, 0)


class Decode(phases.Decode):
    """The eager one's window of steps, each of them compiled. `compile_seconds` is the first
    step's time; `cudagraph_skips`, None on a CPU, how often torch gave up a graph and started the
    operations one by one. Without `compiled` the steps stay eager: memory is the same."""

    def __init__(self, model: PreTrainedModel, batch: int, context: int, compiled: bool = True):
        self.model = model.eval()
        self.steps = phases.window(context)
        self.tokens = batch * self.steps
        self.filled = context - self.steps
        self.ids = phases.random_tokens(model, batch, self.steps).split(1, dim=1)
        self.cache = _started(model, batch, context)
        phases.fill(model, phases.random_tokens(model, batch, self.filled), self.cache)
        self.compile_seconds = self.cudagraph_skips = None
        self._call = self._compiled() if compiled else model

    def _compiled(self):
        torch.compiler.reset()  # shapes are exact: another cell is another program
        graphs = "reduce-overhead" if self.model.device.type == "cuda" else None
        skipped = _cudagraph_skips()
        self._call = torch.compile(self.model, mode=graphs, fullgraph=True, dynamic=False)
        taken = []
        for _ in range(SETTLING_STEPS):
            self.prepare()
            began = time.perf_counter()
            try:
                self._step(self.ids[0])
            except torch._dynamo.exc.TorchDynamoException as error:
                if memory.is_out_of_memory(error):
                    raise
                first = models.first_line(getattr(error, "inner_exception", error))
                raise Refusal("refused", f"the step cannot be compiled: {first}") from error
            devices.synchronize(self.model.device)
            taken.append(time.perf_counter() - began)
        self.compile_seconds = taken[0]
        self.cudagraph_skips = _cudagraph_skips() - skipped if graphs else None
        return self._call

    def prepare(self) -> None:
        _cut(self.cache, self.filled)

    def work(self) -> None:
        for ids in self.ids:
            self._step(ids)

    @torch.no_grad()
    def _step(self, ids: torch.Tensor) -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        call = self._call
        return call(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits


def refuses(device: torch.device) -> str | None:
    """Why nothing can be compiled here; None where it can."""
    compilers = ("c++", "g++", "clang++") if device.type == "cpu" else ("cc", "gcc", "clang")
    named = os.environ.get("CXX" if device.type == "cpu" else "CC")
    if any(shutil.which(compiler) for compiler in (*compilers, named) if compiler):
        return None
    return f"torch.compile needs a C++ compiler, and there is none: install {compilers[1]}"


def _started(model: PreTrainedModel, batch: int, context: int) -> StaticCache:
    """An empty cache whose memory is there already. Raises Refusal where layers attend to a window
    alone: they hold less, roll over at its end, and cannot be cut back."""
    cache = StaticCache(config=model.config, max_cache_len=context)
    if any(cache.is_sliding):
        raise Refusal(
            "refused", "a static cache is probed of full attention, not of sliding windows"
        )
    with torch.no_grad():
        model(phases.random_tokens(model, batch, 1), past_key_values=cache, logits_to_keep=1)
    _cut(cache, 0)
    return cache


def _cudagraph_skips() -> int:
    return torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]


def _cut(cache: StaticCache, tokens: int) -> None:
    """Forget all but the first `tokens`; what lies beyond is masked, and written over."""
    for layer in cache.layers:
        layer.cumulative_length.fill_(tokens)
