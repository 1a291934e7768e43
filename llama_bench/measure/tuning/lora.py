"""Low-rank adaptation: the weights stay, and products of two thin matrices beside them move.

Hu et al. 2021, arXiv 2106.09685, section 4.1: W x becomes W x + (alpha / r) B A x, with B zero at
the start. peft puts them in, adds them to the weights in the end, and saves them for its users.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llama_bench.records import Refusal
from llama_bench.specs import FinetuneSpec

PRODUCTS = (torch.nn.Linear, Conv1D)  # the second is how GPT-2 is written


def insert(model: PreTrainedModel, spec: FinetuneSpec):
    """peft's wrapper of `model`, whose own modules now have the products in them; drawn with the
    spec's seed alone. Raises Refusal for targets that the model lacks."""
    from peft import LoraConfig, get_peft_model  # seconds to import, and only needed here

    _refuse_targets(model, spec.targets)
    asked = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(spec.targets),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return get_peft_model(model, asked)


def _refuse_targets(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    own = [name for name, part in model.named_modules() if isinstance(part, PRODUCTS)]
    lacking = [t for t in targets if not any(f".{name}".endswith(f".{t}") for name in own)]
    if lacking:
        kinds = ", ".join(sorted({name.rpartition(".")[2] for name in own}))
        reason = f"lora.targets: the model has no {', '.join(lacking)}; it has {kinds}"
        raise Refusal("refused", f"{reason}; name some of these")
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is table.weight:
        names = [name for name, part in model.named_modules() if part is head]
        if any(f".{name}".endswith(f".{t}") for name in names for t in targets):
            reason = f"lora.targets: {names[0]} shares its weights with the embeddings"
            raise Refusal("refused", f"{reason}, which adapting it would change; leave it out")


def save(adapted, folder: Path, named: str | None) -> None:
    """The products alone, as peft loads them beside the model called `named`."""
    for config in adapted.peft_config.values():
        config.base_model_name_or_path = named
    adapted.save_pretrained(folder, save_embedding_layers=False)


def merge(adapted) -> PreTrainedModel:
    """The model with the products added to its weights, and nothing of peft left in it."""
    return adapted.merge_and_unload(safe_merge=True)
