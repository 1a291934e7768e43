"""What a fine-tuning begins with: a model of the study, one trained elsewhere, or random weights.

Weights are trained in float32 whatever they are stored in, and stored in the end as they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llama_bench import records
from llama_bench.measure import lineage
from llama_bench.measure import model as models
from llama_bench.measure.ensemble_model import EnsembleForCausalLM
from llama_bench.measure.text.held_out import TOKENIZER
from llama_bench.records import Refusal
from llama_bench.specs import FinetuneSpec, Member


@dataclass
class Base:
    """`tokenizer_folder` holds the tokenizer's files, `dtype` is that of the weights as stored;
    `named` is what an adapter says that it is of."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    tokenizer_folder: Path
    dtype: torch.dtype
    named: str | None
    origin: dict[str, Any] | None
    ancestors: list[str]


def load(spec: FinetuneSpec, inputs: list[Path]) -> Base:
    """On the CPU. Raises Refusal for a model that cannot be had or fine-tuned."""
    found = _from_zero(spec, inputs[0]) if spec.base is None else _given(spec.base, inputs[2:])
    limit = getattr(found.model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and spec.context > limit:
        reason = f"context: {spec.context} tokens are more than the {limit} of the base"
        raise Refusal("refused", f"{reason}; give the fine-tuning a shorter one")
    found.ancestors.append(spec.id)
    return found


def _from_zero(spec: FinetuneSpec, prepare: Path) -> Base:
    """A new shape, with the prepare run's tokenizer."""
    vocab_size = records.read(prepare).result["vocab_size"]
    model = models.build(spec.model, vocab_size, spec.context, spec.seed)
    folder = prepare.parent / TOKENIZER
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Base(model, tokenizer, folder, torch.float32, None, None, [])


def _given(member: Member, inputs: list[Path]) -> Base:
    (source,) = lineage.sources_of((member,), inputs)
    folder = lineage.folder_of(member, source)
    trusted = bool(member.pretrained and member.pretrained.trust_remote_code)
    model = models.load(folder, trusted=trusted)
    named = member.run or member.pretrained.id
    if isinstance(model, EnsembleForCausalLM):
        reason = "is an ensemble of outputs: several models side by side; fine-tune its members"
        raise Refusal("refused", f"{named} {reason}")
    tokenizer = _tokenizer(folder, trusted, model, named)
    dtype = AutoConfig.from_pretrained(folder, trust_remote_code=trusted).dtype or torch.float32
    said = {"verb": member.verb, "run": member.run}
    if member.pretrained:
        said = {"pretrained": member.pretrained.model_dump(exclude_none=True)}
    ancestors = lineage.ancestors(member, source)
    return Base(model, tokenizer, folder, dtype, named, said, ancestors)


def _tokenizer(folder: Path, trusted: bool, model: PreTrainedModel, named: str):
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trusted
        )
    except Exception as error:  # what it raises depends on which file is missing or broken
        first = models.first_line(error)
        raise Refusal("refused", f"{named} has no tokenizer that can be loaded: {first}") from error
    rows = model.get_input_embeddings().weight.shape[0]
    ids = max(tokenizer.get_vocab().values(), default=-1) + 1
    if ids > rows:
        raise Refusal("refused", f"{named}: its tokenizer has {ids} ids, the model {rows}")
    return tokenizer
