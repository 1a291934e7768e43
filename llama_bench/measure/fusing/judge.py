"""Losses of members and of means of their weights, each measured once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from llama_bench.measure import held_out_loss
from llama_bench.measure import model as models
from llama_bench.measure.fusing import averaging, weight_files
from llama_bench.measure.fusing.averaging import DTYPES
from llama_bench.measure.fusing.members import Member
from llama_bench.measure.held_out_loss import HeldOut
from llama_bench.records import Refusal

LONGEST_CONTEXT = 2048  # of models that could read more: the text must yield several windows

Weights = tuple[float, ...]


def context_of(members: list[Member]) -> int:
    """The longest that all can read, in tokens."""
    configs = [member.config.get_text_config() for member in members]
    lengths = [getattr(config, "max_position_embeddings", None) for config in configs]
    return min([LONGEST_CONTEXT, *filter(None, lengths)])


class Judge:
    """Answers by the members' weights: (1, 0, ...) is the first member itself. A mean is written to
    `scratch` and loaded from there, as anybody would load it, one at a time. A training on the text
    `data` told its own loss on the judging windows already."""

    def __init__(self, members: list[Member], data: str, held: HeldOut, scratch: Path):
        self.members, self._held, self._scratch = members, held, scratch
        context = held.judging.shape[1] - 1
        losses = [_recorded(member, data, context) for member in members]
        self._recorded = {
            self.alone(place): loss for place, loss in enumerate(losses) if loss is not None
        }
        self._judged: dict[Weights, np.ndarray] = {}
        self._chosen: dict[Weights, float] = {}

    def alone(self, place: int) -> Weights:
        return self.evenly([place])

    def evenly(self, places: list[int]) -> Weights:
        """The weights of the mean of some members."""
        each = 1 / len(places)
        return tuple(each if place in places else 0.0 for place in range(len(self.members)))

    def know(self, weights: Weights, losses: np.ndarray) -> None:
        """What was measured elsewhere."""
        self._judged[weights] = losses

    def loss(self, weights: Weights) -> float:
        """Mean over the judging windows, nats per token."""
        if weights in self._recorded and weights not in self._judged:
            return self._recorded[weights]
        return float(self.losses(weights).mean())

    def losses(self, weights: Weights) -> np.ndarray:
        """Of every token of the judging windows, (windows, context)."""
        if weights not in self._judged:
            self._judged[weights] = self._measured(weights, self._held.judging)
        return self._judged[weights]

    def best(self) -> np.ndarray:
        """As `losses`, of the member that loses least."""
        alone = [self.alone(place) for place in range(len(self.members))]
        return self.losses(min(alone, key=self.loss))

    def choosing_loss(self, weights: Weights) -> float:
        """Mean over the choosing windows, nats per token."""
        if weights not in self._chosen:
            self._chosen[weights] = float(self._measured(weights, self._held.choosing).mean())
        return self._chosen[weights]

    def _measured(self, weights: Weights, windows: np.ndarray) -> np.ndarray:
        """Raises Refusal (non-finite) where a member gives no numbers; a mean of members may."""
        if 1.0 in weights and sum(map(bool, weights)) == 1:
            member = self.members[weights.index(1.0)]
            found = ask(member.folder, windows, member.trusted)
            if not np.isfinite(found).all():
                raise Refusal("non-finite", f"{member.name}: its loss is not finite")
            return found
        shutil.rmtree(self._scratch, ignore_errors=True)
        try:
            folders = [member.folder for member in self.members]
            averaging.write(folders, averaging.in_every_tensor(weights), self._scratch)
            return ask(self._scratch, windows, self.members[0].trusted)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)


def ask(folder: Path, windows: np.ndarray, trusted: bool = False) -> np.ndarray:
    """Losses of the model in a folder, in float32 on the fastest device there is."""
    return held_out_loss.losses(loaded_from(folder, trusted), windows)


def loaded_from(folder: Path, trusted: bool = False) -> PreTrainedModel:
    """Computes in float32, and holds its weights as they are stored."""
    stored = {DTYPES.get(tensor.dtype) for tensor in weight_files.stored(folder).values()}
    dtype = stored.pop() if len(stored) == 1 else torch.float32
    small = dtype in (torch.float16, torch.bfloat16)
    found = models.load(folder, dtype=dtype if small else torch.float32, trusted=trusted)
    return widened(found.to(models.device())) if small else found.to(models.device())


def widened(model: PreTrainedModel) -> PreTrainedModel:
    """The same, but each part of it has its weights in float32 while it computes, and only then:
    the numbers are those of the whole in float32, the memory is that of the stored weights and one
    layer. A layer is one part, for what is in it may use each other's weights."""
    layers = [
        layer
        for parts in model.modules()
        if isinstance(parts, torch.nn.ModuleList)
        for layer in parts
    ]
    inside = {module for layer in layers for module in layer.modules()}
    outside = [each for each in model.modules() if each not in inside]
    for part, deep in (*((each, True) for each in layers), *((each, False) for each in outside)):
        weights = list(part.parameters(recurse=deep))
        if weights:
            _widen_while_it_runs(part, weights)
    return model


def _widen_while_it_runs(part: torch.nn.Module, weights: list[torch.nn.Parameter]) -> None:
    held: list[torch.Tensor] = []

    def widen(*_):
        held.extend(weight.data for weight in weights)
        for weight in weights:
            weight.data = weight.data.float()

    def narrow(*_):
        for weight, stored in zip(weights, held, strict=True):
            weight.data = stored
        held.clear()

    part.register_forward_pre_hook(widen)
    part.register_forward_hook(narrow, always_call=True)


def _recorded(member: Member, data: str, context: int) -> float | None:
    """What a training in float32 measured on the windows that are asked here."""
    if member.record is None or member.record.verb != "train":
        return None
    spec = member.record.spec
    same = (spec["data"], spec["context"], spec["precision"]) == (data, context, "float32")
    return member.record.result["loss"] if same else None
