"""The course of a training: one branch, which leaves its trunk where the rate begins to fall."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from llama_bench.measure.training import schedule, world
from llama_bench.measure.training import state as states
from llama_bench.measure.training.engine import Engine
from llama_bench.measure.training.loop import refuse_nan
from llama_bench.measure.training.state import State
from llama_bench.measure.training.validation import Validation
from llama_bench.specs import TrainSpec


class Branch:
    """A loop's course. A loss of three times that of a uniform guess is a divergence."""

    def __init__(
        self,
        spec: TrainSpec,
        peak: float,
        folder: Path,
        engine: Engine,
        state: State,
        held_out: Validation,
    ):
        self.spec, self.peak, self.folder = spec, peak, folder
        self.engine, self.state, self.held_out = engine, state, held_out
        self.steps = spec.steps
        self.highest_loss = 3 * math.log(engine.objective.vocab_size)

    def rate(self, step: int) -> float:
        return schedule.rate(self.spec, step, self.peak)

    def tokens(self, first: int, end: int) -> int:
        return (end - first) * self.spec.batch_tokens

    def is_point(self, step: int) -> bool:
        return step == self.spec.trunk_steps and self.spec.schedule is None

    def reach(self) -> bool:
        """Keep the trunk for longer branches, and see how good it is before the rate falls."""
        bare = replace(self.state, trunk_loss=None, averaged_loss=None)
        given = self.engine.give(bare)
        if world.rank() == 0:
            with states.full_disk_told(self.folder):
                states.save(given, self.folder / "trunk.pt")
        self.state.trunk_loss = self.held_out.loss_of_few(self.engine)
        self.state.averaged_loss = self.held_out.loss_of_mean(self.engine)
        for loss in (self.state.trunk_loss, self.state.averaged_loss):
            refuse_nan(loss, self.state.step, self.steps)
        return True
