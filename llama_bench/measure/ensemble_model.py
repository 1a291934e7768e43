"""Several causal language models as one: their next-token probabilities, averaged.

A mixture is the weighted mean of the members' probabilities, log sum_i w_i p_i (a linear opinion
pool); a product the weighted mean of their log-probabilities, normalised (a logarithmic pool, with
equal weights Hinton 2002, Neural Computation 14, equation 1, to the power 1 / members). Both come
from one pass of each member, which costs and keeps what it would alone. Members may differ in size,
not in vocabulary.

The cache is transformers' own: the first member's layers, then the second's, and so on; each member
sees its part. What cuts, reorders or repeats a cache does so here too.

This file is copied beside an ensemble's weights, so that `AutoModelForCausalLM` loads them with
`trust_remote_code` where nothing else is installed: it rests on torch and transformers alone.
"""

from __future__ import annotations

import math

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast


class EnsembleConfig(PreTrainedConfig):
    """`members` are the configurations of the models, as dictionaries; `weights` sum to one."""

    model_type = "llama_bench_ensemble"

    def __init__(self, members=(), weights=(), method="mixture", use_cache=True, **rest):
        self.members = [dict(member) for member in members]
        self.weights = [float(weight) for weight in weights]
        self.method, self.use_cache = method, use_cache
        super().__init__(**rest)
        if not self.members:  # as transformers makes one, to see what is a default
            return
        configs = self.member_configs()
        lengths = [getattr(config, "max_position_embeddings", None) for config in configs]
        self.max_position_embeddings = min(filter(None, lengths), default=None)
        self.num_hidden_layers = sum(config.num_hidden_layers for config in configs)
        for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(self, name, getattr(configs[0], name, None))

    def member_configs(self) -> list[PreTrainedConfig]:
        return [AutoConfig.for_model(**member) for member in self.members]


class Pool:
    """The next-token log-probabilities of the members added so far, in float32; their weights
    need not sum to one."""

    def __init__(self, method: str):
        self.mixture = method == "mixture"
        self.total, self.weight = None, 0.0

    def add(self, logits: torch.Tensor, weight: float = 1.0) -> None:
        if weight == 0:  # its logarithm, or its product with an impossible token's, is no number
            return
        told = normalised(logits.float())
        told = told + math.log(weight) if self.mixture else told * weight
        if self.total is None:
            self.total = told
        else:
            self.total = torch.logaddexp(self.total, told) if self.mixture else self.total + told
        self.weight += weight

    def log_probabilities(self) -> torch.Tensor:
        if self.mixture:
            return self.total - math.log(self.weight)
        return normalised(self.total / self.weight)


def normalised(logits: torch.Tensor) -> torch.Tensor:
    """Log-softmax. Of torch's own, in float32 on a CPU, the probabilities are wrong by more than
    1e-6; of its exp and its sum, one after the other, by a few 1e-7."""
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()


class EnsembleForCausalLM(PreTrainedModel, GenerationMixin):
    """Its logits are log-probabilities, float32 whatever the members compute in."""

    config_class = EnsembleConfig
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]

    def __init__(self, config: EnsembleConfig):
        super().__init__(config)
        # torch's own attention stands here where nobody asked for any, and not every member has it
        asked = config._attn_implementation
        for place, member in enumerate(config.member_configs()):
            made = AutoModelForCausalLM.from_config(
                member,
                dtype=torch.get_default_dtype(),  # that of the whole
                attn_implementation=None if asked == "sdpa" else asked,
            )
            # children of this very module: transformers looks for tied weights no deeper
            self.add_module(member_name(place), made)
        self.post_init()

    @property
    def members(self) -> list[PreTrainedModel]:
        return [getattr(self, member_name(place)) for place in range(len(self.config.members))]

    def get_input_embeddings(self) -> torch.nn.Module:
        """The first member's: all have as many rows."""
        return self.members[0].get_input_embeddings()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.members[0].get_output_embeddings()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **rest,
    ) -> CausalLMOutputWithPast:
        if rest.pop("inputs_embeds", None) is not None:
            raise ValueError("inputs_embeds: members have embeddings of their own; give input_ids")
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        pool = Pool(self.config.method)
        asked = dict(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)
        asked |= dict(use_cache=use_cache, logits_to_keep=logits_to_keep)
        caches = self._caches(past_key_values)
        for member, weight, cache in zip(self.members, self.config.weights, caches, strict=True):
            pool.add(member(**asked, past_key_values=cache).logits, weight)
        logits, loss = pool.log_probabilities(), None
        if labels is not None:
            vocab_size = self.config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def _caches(self, whole: Cache | None) -> list[Cache | None]:
        """Each member's part of the layers; of a cache that grows, layers are made first."""
        if whole is None:
            return [None] * len(self.members)
        if whole.layer_class_to_replicate is not None:
            while len(whole.layers) < self.config.num_hidden_layers:
                whole.layers.append(whole.layer_class_to_replicate())
        parts, first = [], 0
        for member in self.members:
            end = first + member.config.num_hidden_layers
            parts.append(Cache(layers=whole.layers[first:end]))
            first = end
        return parts


def member_name(place: int) -> str:
    """What the names of a member's weights begin with."""
    return f"member_{place}"
