"""The course of a fine-tuning: validations between the steps, the best state kept, an early end.

The rate rises over the first steps and falls in a straight line to zero at the last there can be
(Devlin et al. 2019, arXiv 1810.04805, appendix A.2). The base itself is the first state that is
validated: where learning only does harm, it is what is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from llama_bench.measure.training.engine import Engine
from llama_bench.measure.training.loop import refuse_nan
from llama_bench.measure.training.state import State
from llama_bench.measure.training.tokens import Order
from llama_bench.measure.tuning.judging import loss_of
from llama_bench.specs import FinetuneSpec


@dataclass
class TuningState(State):
    """`before` is what was measured of the base; `validations` are pairs of step and loss (nats per
    answer token), and `best` the weights after the step with the lowest."""

    before: dict[str, Any] = field(default_factory=dict)
    validations: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

    @property
    def best_step(self) -> int:
        return min(self.validations, key=lambda pair: pair[1])[0]


class Course:
    """What a loop follows. A loss of three times that of a uniform guess, or of the base's where
    that is more, is a divergence."""

    def __init__(
        self, spec: FinetuneSpec, engine: Engine, state: TuningState, order: Order, parts: dict
    ):
        self.spec, self.engine, self.state, self.order = spec, engine, state, order
        self.parts, self._lengths = parts, parts["train"].lengths
        self.steps = spec.steps
        begun = state.validations[0][1]
        self.highest_loss = 3 * max(math.log(engine.objective.vocab_size), begun)

    def rate(self, step: int) -> float:
        spec = self.spec
        rising = min(1.0, (step + 1) / spec.warmup_steps) if spec.warmup_steps else 1.0
        falling = (spec.steps - step) / max(1, spec.steps - spec.warmup_steps)
        return spec.learning_rate * min(rising, falling, 1.0)

    def lengths(self, first: int, end: int) -> np.ndarray:
        """Tokens of every sequence of these steps."""
        rows = [self.order.step(step) for step in range(first, end)]
        return self._lengths[np.concatenate(rows)] if rows else np.empty(0, dtype=np.int64)

    def tokens(self, first: int, end: int) -> int:
        return int(self.lengths(first, end).sum())

    def is_point(self, step: int) -> bool:
        return step % self.spec.validate_every == 0 or step == self.steps

    def reach(self) -> bool:
        state = self.state
        if state.validations[-1][0] < state.step:
            loss, _ = loss_of(self.engine, self.parts["validation"])
            refuse_nan(loss, state.step, self.steps)
            if loss < min(each for _, each in state.validations):
                state.best = kept(self.engine)
            state.validations.append((state.step, loss))
        return not self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        since = [step for step, _ in self.state.validations if step > self.state.best_step]
        return len(since) >= self.spec.patience


def kept(engine: Engine) -> dict[str, torch.Tensor]:
    """Copies of the weights that move."""
    return {name: weight.clone() for name, weight in engine.whole_weights().items()}
