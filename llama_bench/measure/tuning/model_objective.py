"""What a fine-tuning minimises where the model is no plain Llama, or has low-rank products in it.

The model's own forward pass in transformers, with the interface of training/objective.py. It stays
in evaluation mode: dropout would draw at random, and a resumed run could not equal one that was
never stopped.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from llama_bench.measure.training import objective
from llama_bench.measure.training.objective import IGNORED, Objective


class ModelObjective(nn.Module):
    """Called like `Objective`: the sum of the answers' losses x scale, or the loss of each token.

    The head works on the places where any of a batch's sequences has an answer.
    """

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtype = model, dtype
        self.vocab_size = model.get_output_embeddings().weight.shape[0]
        self.checkpointed = False  # it gives up no activations: a batch in parts is all it has

    def train(self, mode: bool = True) -> ModelObjective:
        return super().train(False)

    def forward(self, inputs, targets, scale: float | None):
        places = (targets != IGNORED).any(0).nonzero()[:, 0]
        low = self.dtype == torch.bfloat16
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=low):
            out = self.model(input_ids=inputs, use_cache=False, logits_to_keep=places)
        # some models take the number of last logits alone, and give all for anything else
        logits = out.logits if out.logits.shape[1] == len(places) else out.logits[:, places]
        asked = targets[:, places]
        each = functional.cross_entropy(
            logits.float().flatten(0, 1), asked.flatten(), ignore_index=IGNORED, reduction="none"
        )
        if scale is not None:
            return each.sum() * scale
        whole = each.new_zeros(targets.shape)
        whole[:, places] = each.view(asked.shape)
        return whole


def of(model: PreTrainedModel, dtype: torch.dtype, low_rank: bool) -> nn.Module:
    """The faster of the two that gives the model's loss."""
    if objective.serves(model) and not low_rank:
        return Objective(model, dtype, masked=True)
    return ModelObjective(model, dtype)
