"""Weights, gradients and moments of one training or fine-tuning, on one or several devices.

AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with decay on matrices only, gradients clipped
by their norm. A batch that is too large for the memory there is is taken in parts whose gradients
add up; where not even one sequence fits, layers forget what they can compute again. Weights that
ask for no gradient stay as they are, and are in no state.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from llama_bench.measure import memory
from llama_bench.measure.training import averaging, parallel, world
from llama_bench.measure.training.objective import IGNORED, Objective
from llama_bench.measure.training.state import State
from llama_bench.records import Refusal
from llama_bench.specs import FinetuneSpec, TrainSpec

MOMENTS = ("exp_avg", "exp_avg_sq")


class Engine:
    """What a step needs. `micro_batch`: sequences that this process takes at once. `objective` is
    the model's plain mean loss unless another is given."""

    def __init__(
        self,
        model,
        spec: TrainSpec | FinetuneSpec,
        strategy: parallel.Strategy,
        device: torch.device,
        objective: torch.nn.Module | None = None,
    ):
        self.spec, self.device, self.strategy = spec, device, strategy
        self.objective = (objective or Objective(model, getattr(torch, spec.precision))).train()
        self._wrapped = parallel.placed(self.objective, strategy, device)
        self.model = model
        named = model.named_parameters()  # tied weights are listed once
        self.weights = {name: weight for name, weight in named if weight.requires_grad}
        self.optimizer = self._optimizer()
        self.mean = None
        if isinstance(spec, TrainSpec) and spec.schedule is None:
            self.mean = {name: w.detach().clone() for name, w in self.weights.items()}
        self.compiled = False
        self.rows = spec.batch // world.processes()
        self.micro_batch = self.rows

    def _optimizer(self) -> torch.optim.AdamW:
        """Its moments are there from the start, so that memory which suffices for a step
        suffices for all."""
        spec, weights = self.spec, self.weights.values()
        groups = [
            {"params": [w for w in weights if w.dim() >= 2], "weight_decay": spec.weight_decay},
            {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=spec.betas, eps=1e-8, fused=True)
        for weight in weights:
            optimizer.state[weight] = {
                "step": torch.zeros((), dtype=torch.float32, device=weight.device),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }
        return optimizer

    def step(self, batch, rate: float) -> torch.Tensor:
        """One optimizer step; the mean loss of this process's rows, left on the device."""
        loss = self.gradients(batch)
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self.spec.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def gradients(self, batch, shared: bool = True) -> torch.Tensor:
        """Of the mean over this process's targets; DDP and FSDP take the mean of those."""
        scale = 1 / int((batch[1] != IGNORED).sum())
        inputs, targets = (part.to(self.device, non_blocking=True) for part in batch)
        losses = []
        for first in range(0, self.rows, self.micro_batch):
            part = slice(first, first + self.micro_batch)
            last = first + self.micro_batch >= self.rows
            with parallel.gradients_shared(self._wrapped, shared and last):
                loss = self._wrapped(inputs[part], targets[part], scale)
                loss.backward()
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def find_room(self, batch) -> None:
        """Halve the parts of a batch until its gradients fit, then give up activations.

        Raises Refusal (out-of-memory) in all processes where even that does not fit in one.
        """
        while True:
            reason = self._trial(batch)
            failed = parallel.highest([float(reason is not None)], self.device)[0]
            if not failed:
                return
            memory.release()
            smaller = [n for n in range(1, self.micro_batch) if self.rows % n == 0]
            if smaller:
                halves = [n for n in smaller if n <= self.micro_batch / 2]
                self.micro_batch = max(halves)
            elif not self.objective.checkpointed:
                self.objective.checkpointed = True
            else:
                raise Refusal("out-of-memory", reason or "another process has no memory left")

    def _trial(self, batch) -> str | None:
        """Gradients that are thrown away; why they could not be had."""
        try:
            for _ in range(2):  # a second pass finds memory as the first one left it
                # FSDP shares them in any case: whole gradients are what does not fit
                self.gradients(batch, shared=self.strategy == "fsdp")
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            return str(error).strip().splitlines()[0]
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        return None

    def average(self, step: int) -> None:
        """Take the weights after `step` steps into the running mean."""
        if self.mean is not None:
            mean = [parallel.own(tensor) for tensor in self.mean.values()]
            averaging.update(mean, [parallel.own(w) for w in self.weights.values()], step)

    def be_compiled(self, compiled: bool) -> None:
        self.compiled = compiled
        self.objective.be_compiled(compiled)

    def take(self, state: State) -> None:
        """Stand where a state stands, and carry on as it did."""
        for name, weight in self.weights.items():
            parallel.fill(weight, state.model[name])
            moments = self.optimizer.state[weight]
            moments["step"].fill_(state.step)
            for moment in MOMENTS:
                parallel.fill(moments[moment], state.optimizer[name][moment])
            if self.mean is not None:
                parallel.fill(self.mean[name], state.average[name])
        self.micro_batch = min(self.rows, state.micro_batch)
        self.objective.checkpointed = state.checkpointed

    def give(self, state: State) -> State:
        """The state with all tensors, whole and on the CPU; every process must ask."""
        moments = {
            name: {key: parallel.whole(self.optimizer.state[w][key]) for key in MOMENTS}
            for name, w in self.weights.items()
        }
        mean = {name: parallel.whole(tensor) for name, tensor in (self.mean or {}).items()}
        tensors = {"model": self.whole_weights(), "optimizer": moments, "average": mean}
        how = {"micro_batch": self.micro_batch, "checkpointed": self.objective.checkpointed}
        return replace(state, **tensors, **how, compiled=self.compiled)

    def whole_weights(self) -> dict[str, torch.Tensor]:
        return {name: parallel.whole(weight) for name, weight in self.weights.items()}

    @torch.no_grad()
    def losses(self, batch) -> torch.Tensor:
        """Of each token, nats, float32, (windows, context); those of IGNORED targets are 0."""
        losses = self.objective(*(part.to(self.device) for part in batch), None)
        parallel.forget_gathered(self.objective)
        return losses
