"""The model that a probe is about, on its device and in its precision.

Weights do not change how long a product takes. So of a shape, and with `random_weights` of a
pretrained model, only the configuration is needed, and weights are drawn where they will be used
and in the numbers that they will have: a 70 B model in bfloat16 passes through no host memory.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from llama_bench.measure import ensemble, memory
from llama_bench.measure import model as models
from llama_bench.measure.ensemble_model import EnsembleConfig
from llama_bench.measure.probing import quantized
from llama_bench.records import Refusal
from llama_bench.specs import ProbeSpec


def dtype_of(precision: str) -> torch.dtype:
    """What products are computed in; weights of fewer bits are multiplied in bfloat16."""
    return torch.float32 if precision == "float32" else torch.bfloat16


def is_drawn(spec: ProbeSpec) -> bool:
    return spec.pretrained is None or bool(spec.random_weights)


def configuration(spec: ProbeSpec, inputs: list[Path]) -> PreTrainedConfig:
    """Of the model, without its weights. Raises Refusal where there is none."""
    if spec.pretrained is None:
        room = max(spec.contexts) + (spec.engine == "vllm")  # which counts the token that it draws
        if spec.model is not None:
            return models.config_of(spec.model, spec.vocab_size, room)
        shapes = [models.config_of(each, spec.vocab_size, room) for each in spec.members]
        return ensemble.config_of(shapes)
    named, revision = spec.pretrained.repo, spec.pretrained.revision
    if named:
        models.ask_hub(named, revision)
    elif not (inputs[0] / "config.json").is_file():
        raise Refusal("missing", f"{inputs[0]} holds no model (no config.json)")
    try:
        return AutoConfig.from_pretrained(
            named or inputs[0],
            revision=revision or "main",
            local_files_only=named is None,
            trust_remote_code=_trusted(spec),
        )
    except (ValueError, KeyError, OSError) as error:
        if named and isinstance(error, OSError):
            raise  # no network says nothing about the model
        reason = (
            f"the config.json of {named or inputs[0]} is no model's: {models.first_line(error)}"
        )
        raise Refusal("refused", reason) from error


def _trusted(spec: ProbeSpec) -> bool:
    return bool(spec.pretrained and spec.pretrained.trust_remote_code)


def counted(config: PreTrainedConfig) -> dict[str, int]:
    """Parameters by the three definitions of `Shape.parameters`, without drawing one."""
    return models.count(drawn(config, torch.bfloat16, torch.device("meta")))


def members(config: PreTrainedConfig) -> list[dict[str, int]] | None:
    """The shape of each member of an ensemble; None of any other model."""
    if not isinstance(config, EnsembleConfig):
        return None
    return [_shape(member) for member in config.member_configs()]


def shape(config: PreTrainedConfig) -> dict[str, int] | None:
    """What the formulas of operations and cache need, of any configuration; an ensemble has none
    of its own."""
    return None if isinstance(config, EnsembleConfig) else _shape(config)


def _shape(config: PreTrainedConfig) -> dict[str, int]:
    heads = config.num_attention_heads
    return {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": heads,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_size": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "vocab_size": config.vocab_size,
    }


def cache_bytes(config: PreTrainedConfig, tokens: int, dtype: torch.dtype) -> int:
    """What a key-value cache should take: a key and a value per layer, key-value head and token
    (`Shape.kv_bytes_per_token`, of any configuration); of an ensemble for each member."""
    numbers = sum(
        2 * of["layers"] * of["kv_heads"] * of["head_size"]
        for of in members(config) or [_shape(config)]
    )
    return numbers * dtype.itemsize * tokens


def drawn(config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Random weights on the device."""
    trusted = type(config).__module__.startswith("transformers_modules")  # its code ran already
    with torch.random.fork_rng(devices=[]), torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trusted)


def obtain(
    spec: ProbeSpec, config: PreTrainedConfig, inputs: list[Path], device: torch.device
) -> PreTrainedModel:
    """Raises Refusal where the model cannot be had or does not fit into memory."""
    dtype = dtype_of(spec.precision)
    try:
        if is_drawn(spec):
            model = drawn(config, dtype, device)
        else:
            model = loaded(spec, inputs[0] if inputs else None, dtype)
            _settle(model)
        if spec.precision in quantized.PRECISIONS:
            quantized.shrink(model, spec.precision, device)
        return model.to(device)
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        reason = f"the weights alone do not fit: {models.first_line(error)}"
        raise Refusal("out-of-memory", reason) from error


def _settle(model: PreTrainedModel) -> None:
    """On a CPU loaded weights are pages of their file, which only come to memory when they are
    used; so they are taken in before anything is measured."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.device.type == "cpu":
                weight.data = weight.data.clone()


def loaded(spec: ProbeSpec, folder: Path | None, dtype: torch.dtype) -> PreTrainedModel:
    """The weights of a folder, or else of the Hub's repository."""
    trusted, called = _trusted(spec), None
    if folder is None:
        called, revision = spec.pretrained.repo, spec.pretrained.revision
        folder = models.fetched(called, revision, trusted)
    return models.load(folder, dtype, trusted, called)
