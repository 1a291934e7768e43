"""Whether models can be an ensemble of outputs, and what their weights are called in it.

What transformers makes of a folder is asked of itself, on the meta device: which of the stored
names it takes, under which it knows them, and which it has no use for.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import LinearAttentionLayer

from llama_bench import sources
from llama_bench.measure import model
from llama_bench.measure.ensemble_model import EnsembleConfig
from llama_bench.measure.fusing import weight_files
from llama_bench.records import Refusal

_MISFITS = {
    "missing_keys": "lacks weights that its config asks for",
    "unexpected_keys": "holds weights that its config does not ask for",
    "mismatched_keys": "has weights of another shape",
}


def configs_of(folders: list[Path]) -> list[PreTrainedConfig]:
    """Raises Refusal where token i does not mean the same to all members."""
    configs = [_config_of(folder) for folder in folders]
    for folder, config in zip(folders[1:], configs[1:], strict=True):
        if config.vocab_size != configs[0].vocab_size:
            sizes = f"{config.vocab_size} ids, {folders[0]} {configs[0].vocab_size}"
            raise Refusal("refused", f"{folder} has {sizes}; an ensemble shares one vocabulary")
        if not sources.same_tokenizer(folders[0], folder):
            reason = f"{folder} and {folders[0]} have different tokenizers"
            raise Refusal("refused", f"{reason}; an ensemble shares one vocabulary")
    return configs


def _config_of(folder: Path) -> PreTrainedConfig:
    if not (folder / "config.json").is_file():
        raise Refusal("missing", f"{folder} holds no model (no config.json)")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise _unusable(folder, error) from error
    if isinstance(config, EnsembleConfig):
        raise Refusal("refused", f"{folder} is an ensemble itself; name its members instead")
    return config


def names_of(folder: Path) -> dict[str, str]:
    """What a member's weights are to be called for transformers, by their names in its files.

    Many on the Hub are stored as the model without its head, whose names lack what that model is
    called in the whole (GPT-2's: `transformer.`); transformers adds it for a model, but not for a
    model in a model. What else it does on loading (other names of old, weights that are joined,
    buffers of old that are ignored) it does for both. Raises Refusal where the weights are not
    those that the config asks for, or the model keeps other things than keys and values.
    """
    stored = weight_files.stored(folder)
    made = _without_weights(folder)
    _refuse_other_caches(folder, made)
    known = made.state_dict().keys()
    longer = {name: f"{made.base_model_prefix}.{name}" for name in stored.keys() - known}
    return {name: longer[name] if longer.get(name) in known else name for name in stored}


def _without_weights(folder: Path) -> PreTrainedModel:
    try:
        made, report = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map="meta",
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (ValueError, ImportError) as error:
        raise _unusable(folder, error) from error
    for key, misfit in _MISFITS.items():
        names = sorted(name if isinstance(name, str) else name[0] for name in report[key])
        if names:
            raise Refusal("refused", f"{folder} {misfit}: {', '.join(names[:3])}")
    return made


def _refuse_other_caches(folder: Path, made: PreTrainedModel) -> None:
    """An ensemble's cache is its members' layers of keys and values, one after the other."""
    keeps = "past_key_values" in inspect.signature(made.forward).parameters
    layers = DynamicCache(config=made.config).layers
    if not keeps or any(isinstance(layer, LinearAttentionLayer) for layer in layers):
        reason = (
            f"{folder} is a {made.config.model_type}, which does not keep keys and values alone"
        )
        raise Refusal("refused", f"{reason}, as the members of an ensemble do; leave it out")


def _unusable(folder: Path, error: Exception) -> Refusal:
    return Refusal("refused", f"{folder} cannot be in an ensemble: {model.first_line(error)}")
