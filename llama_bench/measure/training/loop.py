"""The steps of one branch, from where its state stands to the end of its budget.

Losses stay on the device and are read back some steps at a time, so that a GPU never waits for the
program; reading is also when processes agree (stop, save) and divergence is noticed. The step of a
divergence is exact all the same, since no loss is skipped.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from llama_bench.measure.training import parallel, world
from llama_bench.measure.training import state as states
from llama_bench.measure.training.engine import Engine
from llama_bench.measure.training.schedule import rate
from llama_bench.measure.training.state import State
from llama_bench.measure.training.validation import Validation
from llama_bench.records import Refusal
from llama_bench.specs import TrainSpec

READ_EVERY_STEPS = 8
READ_EVERY_SECONDS = 1.0  # slow steps are read one by one: a stop must not wait for eight
SAVE_EVERY_SECONDS = 60.0
SAVING_SHARE = 0.05  # of the time, at most: large states are saved less often


class Loop:
    """Steps, and what happens between them: the branch's own points, losses, states, the stop."""

    def __init__(
        self,
        spec: TrainSpec,
        peak: float,
        folder: Path,
        engine: Engine,
        state: State,
        held_out: Validation,
        progress,
    ):
        self.spec, self.peak, self.folder, self.progress = spec, peak, folder, progress
        self.engine, self.state, self.held_out = engine, state, held_out
        self.first = state.step
        self._unread: list[torch.Tensor] = []
        self._read_every, self._saved = 1, time.monotonic()
        self._save_after = SAVE_EVERY_SECONDS
        self._read = time.monotonic()
        self._evaluating_seconds = 0.0

    def run(self, batches) -> float | None:
        """Tokens per second of this process's own steps; None where none was left.

        Raises Refusal (diverged), UserError (the disk is full); exits when asked to stop.
        """
        spec, state = self.spec, self.state
        began = self._saved = self._read = time.monotonic()
        if self.first > state.began:
            self.progress.say(f"goes on from step {self.first} of {spec.steps}, where it stopped")
        with states.stop_requests() as stop:
            while True:
                if state.step == spec.trunk_steps and spec.schedule is None:
                    self._branch_off()
                if state.step == spec.steps:
                    break
                peak = rate(spec, state.step, self.peak)
                self._unread.append(self.engine.step(next(batches), peak))
                state.step += 1
                self.engine.average(state.step)
                at_a_point = state.step in (spec.trunk_steps, spec.steps)
                if len(self._unread) >= self._read_every or at_a_point:
                    self._look(stop())
        seconds = time.monotonic() - began - self._evaluating_seconds
        done = (state.step - self.first) * spec.batch_tokens
        return done / seconds if done else None

    def _look(self, asked: int | None) -> None:
        """Read the losses of the steps since the last look, and do what has become due."""
        spec, state = self.spec, self.state
        losses = parallel.total(torch.stack(self._unread)).div_(world.processes()).tolist()
        self._unread.clear()
        for number, loss in enumerate(losses, start=len(state.losses)):
            if not loss < 3 * math.log(self.engine.objective.vocab_size):
                raise Refusal(
                    "diverged",
                    f"the loss is {loss:.3g} at step {number} of {spec.steps}",
                    {"step": number, "loss": loss},
                )
            state.losses.append(loss)
        now = time.monotonic()
        pace = max(1, int(READ_EVERY_SECONDS * len(losses) / max(now - self._read, 1e-9)))
        due = now - self._saved > self._save_after
        told = [float(asked or 0), float(world.rank() == 0 and due), float(-pace)]
        told = parallel.highest(told, self.engine.device)
        self._read, self._read_every = now, min(READ_EVERY_STEPS, int(-told[2]))
        recent = float(np.mean(state.losses[-20:]))
        done, of = state.step - self.first, spec.steps - self.first
        self.progress(done, of, f"of its steps, loss {recent:.3f}")
        if told[0] or told[1]:
            self._save()
        if told[0] and state.step < spec.steps:
            signal = int(told[0])
            self.progress.say(f"stopped by signal {signal} after step {state.step}; resumes there")
            sys.exit(128 + signal)

    def _save(self) -> None:
        began = time.monotonic()
        given = self.engine.give(self.state)
        if world.rank() == 0:
            with states.full_disk_told(self.folder):
                states.save_newest(given, self.folder)
        self._saved = time.monotonic()
        self._save_after = max(SAVE_EVERY_SECONDS, (self._saved - began) / SAVING_SHARE)

    def _branch_off(self) -> None:
        """Keep the trunk for longer branches, and see how good it is before the rate falls."""
        bare = replace(self.state, trunk_loss=None, averaged_loss=None)
        given = self.engine.give(bare)
        if world.rank() == 0:
            with states.full_disk_told(self.folder):
                states.save(given, self.folder / "trunk.pt")
        began = time.monotonic()
        self.state.trunk_loss = self.held_out.loss(self.engine)
        self.state.averaged_loss = self.held_out.loss_of_mean(self.engine)
        self._evaluating_seconds += time.monotonic() - began
        self.refuse_nan(self.state.trunk_loss)
        self.refuse_nan(self.state.averaged_loss)

    def refuse_nan(self, loss: float) -> None:
        """A held-out loss that is no number is a divergence too."""
        if not math.isfinite(loss):
            step = self.state.step
            reason = f"the held-out loss is {loss:.3g} after step {step} of {self.spec.steps}"
            raise Refusal("diverged", reason, {"step": step, "loss": loss})
