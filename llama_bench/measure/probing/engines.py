"""What can compute a probe's phases, under one set of methods.

`work(phase, batch, context)` is a cell's work, `try_out` does it once without measuring,
`sampling(batch)` is what generation would add. An engine or a precision that is not to be had here
is known before anything is loaded; a single cell that an engine does not do is a Refusal.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from llama_bench.measure.ensemble_model import EnsembleForCausalLM
from llama_bench.measure.probing import (
    devices,
    phases,
    probed_model,
    quantized,
    static_cache,
    vllm_engine,
    vllm_server,
)
from llama_bench.measure.probing.timing import Work
from llama_bench.records import Refusal
from llama_bench.specs import ProbeSpec


class Transformers:
    """transformers in this process: as it is, or with a static cache and a compiled step."""

    def __init__(
        self,
        spec: ProbeSpec,
        config: PreTrainedConfig,
        inputs: list[Path],
        device: torch.device,
    ):
        self._spec = spec
        self.model = probed_model.obtain(spec, config, inputs, device)
        self.dtype = probed_model.dtype_of(spec.precision)
        self._stored_dtype = self.dtype
        self.builds_dearly = spec.engine == "static"  # each cell is a program to compile
        self.weight_bytes = sum(map(quantized.stored_bytes, self.model.parameters()))

    def work(self, phase: str, batch: int, context: int) -> Work:
        return self._work(phase, batch, context, compiled=True)

    def try_out(self, phase: str, batch: int, context: int) -> None:
        work = self._work(phase, batch, context, compiled=False)
        work.prepare()
        work.work()
        devices.synchronize(self.model.device)

    def _work(self, phase: str, batch: int, context: int, compiled: bool) -> Work:
        static = self._spec.engine == "static"
        if phase == "train":
            self._refuse_training(static)
            self._stored_dtype = torch.float32
            return phases.Train(self.model, batch, context, self.dtype)
        if self._stored_dtype != self.dtype:  # after a training step
            phases.cast(self.model, self.dtype)
            self._stored_dtype = self.dtype
        if phase == "prefill":
            return (static_cache if static else phases).Prefill(self.model, batch, context)
        if static:
            return static_cache.Decode(self.model, batch, context, compiled)
        return phases.Decode(self.model, batch, context)

    def _refuse_training(self, static: bool) -> None:
        if static:
            raise Refusal("refused", "a static cache is for generation; transformers trains")
        if isinstance(self.model, EnsembleForCausalLM):
            raise Refusal("refused", "an ensemble is not trained: its members are, each by itself")
        if self._spec.precision in quantized.PRECISIONS:
            reason = f"{self._spec.precision} weights are for generation; float32 ones train"
            raise Refusal("refused", reason)

    def sampling(self, batch: int) -> Work:
        return phases.Sampling(self.model, batch)

    def clean(self) -> None:
        """Forget what a cell left behind, also where it broke off. Raises RuntimeError where a GPU
        answers no more."""
        devices.synchronize(self.model.device)
        self.model.zero_grad(set_to_none=True)
        if self._spec.engine == "static":
            torch.compiler.reset()

    def close(self) -> None:
        pass


Engine = Transformers | vllm_engine.Engine


def refuses(spec: ProbeSpec, device: torch.device) -> str | None:
    """Why nothing of the grid can be measured here; None where it can."""
    lacks = devices.refuses(device, spec.precision)
    if lacks:
        return lacks
    if spec.engine == "vllm":
        if spec.members:
            return "vllm serves one model, no ensemble; transformers computes one"
        if spec.precision in quantized.PRECISIONS:
            return f"vllm is probed in float32 and bfloat16, not in {spec.precision}"
        try:
            vllm_server.version()
        except Refusal as refusal:
            return refusal.reason
    elif spec.engine == "static" and static_cache.refuses(device):
        return static_cache.refuses(device)
    elif spec.precision in quantized.PRECISIONS:
        return quantized.refuses(spec.precision, device)
    return None


def facts(spec: ProbeSpec) -> dict[str, Any]:
    """Its name, and the version of what it is made of."""
    if spec.engine == "vllm":
        return {"name": "vllm", "version": vllm_server.version()}
    return {"name": spec.engine or "transformers", "version": metadata.version("transformers")}


def start(
    spec: ProbeSpec,
    config: PreTrainedConfig,
    inputs: list[Path],
    device: torch.device,
    folder: Path,
) -> Engine:
    """One import and one load for a whole grid."""
    if spec.engine != "vllm":
        return Transformers(spec, config, inputs, device)
    if inputs and not probed_model.is_drawn(spec):
        source = str(inputs[0])
    elif spec.pretrained and spec.pretrained.repo and not spec.random_weights:
        source = spec.pretrained.repo
    else:
        source = vllm_engine.described(config, folder / "vllm")
    return vllm_engine.Engine(spec, config, source, folder)
