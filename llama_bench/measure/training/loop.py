"""The steps of one run, from where its state stands to the end of its course.

A course says how many steps there are, at which rate, and what happens between them; training and
fine-tuning differ in it alone. Losses stay on the device and are read back some steps at a time, so
that a GPU never waits for the program; reading is also when processes agree (stop, save) and
divergence is noticed. The step of a divergence is exact all the same, since no loss is skipped.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from llama_bench.measure.training import parallel, world
from llama_bench.measure.training import state as states
from llama_bench.measure.training.engine import Engine
from llama_bench.measure.training.state import State
from llama_bench.records import Refusal

READ_EVERY_STEPS = 8
READ_EVERY_SECONDS = 1.0  # slow steps are read one by one: a stop must not wait for eight
SAVE_EVERY_SECONDS = 60.0
SAVING_SHARE = 0.05  # of the time, at most: large states are saved less often


class Course(Protocol):
    """What a loop follows. `steps` are the most there can be; a loss that is not below
    `highest_loss` is a divergence."""

    steps: int
    highest_loss: float

    def rate(self, step: int) -> float:
        """Learning rate of a step."""

    def tokens(self, first: int, end: int) -> int:
        """How many the steps from `first` to before `end` take."""

    def is_point(self, step: int) -> bool:
        """Whether something happens before this step is taken."""

    def reach(self) -> bool:
        """Do what happens at the point where the state stands; whether it goes on from there."""


class Loop:
    """Steps, and what happens between them: the course's own points, losses, states, the stop."""

    def __init__(self, course: Course, folder: Path, engine: Engine, state: State, progress):
        self.course, self.folder, self.progress = course, folder, progress
        self.engine, self.state = engine, state
        self.first = state.step
        self._unread: list[torch.Tensor] = []
        self._read_every, self._saved = 1, time.monotonic()
        self._save_after = SAVE_EVERY_SECONDS
        self._read = time.monotonic()
        self._seconds_at_points = 0.0

    def run(self, batches) -> float | None:
        """Tokens per second of this process's own steps; None where none was left.

        Raises Refusal (diverged), UserError (the disk is full); exits when asked to stop.
        """
        course, state = self.course, self.state
        began = self._saved = self._read = time.monotonic()
        if self.first > state.began:
            self.progress.say(f"goes on from step {self.first} of {course.steps}, where it stopped")
        with states.stop_requests() as stop:
            while self._goes_on():
                rate = course.rate(state.step)
                self._unread.append(self.engine.step(next(batches), rate))
                state.step += 1
                self.engine.average(state.step)
                at_a_point = state.step == course.steps or course.is_point(state.step)
                if len(self._unread) >= self._read_every or at_a_point:
                    self._look(stop())
        seconds = time.monotonic() - began - self._seconds_at_points
        done = course.tokens(self.first, state.step)
        return done / seconds if done else None

    def _goes_on(self) -> bool:
        if self.course.is_point(self.state.step):
            began = time.monotonic()
            goes_on = self.course.reach()
            self._seconds_at_points += time.monotonic() - began
            if not goes_on:
                return False
        return self.state.step < self.course.steps

    def _look(self, asked: int | None) -> None:
        """Read the losses of the steps since the last look, and do what has become due."""
        course, state = self.course, self.state
        losses = parallel.total(torch.stack(self._unread)).div_(world.processes()).tolist()
        self._unread.clear()
        for number, loss in enumerate(losses, start=len(state.losses)):
            if not loss < course.highest_loss:
                raise Refusal(
                    "diverged",
                    f"the loss is {loss:.3g} at step {number} of {course.steps}",
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
        done, of = state.step - self.first, course.steps - self.first
        self.progress(done, of, f"of its steps, loss {recent:.3f}")
        if told[0] or told[1]:
            self._save()
        if told[0] and state.step < course.steps:
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


def refuse_nan(loss: float, step: int, steps: int) -> None:
    """A held-out loss that is no number is a divergence too."""
    if not math.isfinite(loss):
        reason = f"the held-out loss is {loss:.3g} after step {step} of {steps}"
        raise Refusal("diverged", reason, {"step": step, "loss": loss})
