"""No change: the score that a law of scores has to beat on hidden larger runs."""

from __future__ import annotations

from typing import Literal

import numpy as np

from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.laws.law import Law
from llama_bench.derive.laws.surface import Surface


class ConstantSettings(FitSettings):
    """The mean, by squares."""

    loss_function: Literal["huber", "squared"] = "squared"


class Level(Surface):
    """h = level, of accuracies between 0 and 1."""

    names = ("level",)
    lower, upper, generic = np.zeros(1), np.ones(1), np.full(1, 0.5)

    def __init__(self, rows: int):
        self.rows = rows

    def value(self, theta: np.ndarray) -> np.ndarray:
        return np.repeat(theta, self.rows, axis=1)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        return np.ones((len(theta), self.rows, 1))

    def starts(self, count: int, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return np.full((count, 1), np.average(target, weights=weight))


constant = Law(
    "constant",
    ("flops",),
    ("level",),
    lambda columns, reference: Level(len(columns["flops"])),
    lambda theta, reference: {"level": theta[:, 0]},
    "acc = level",
    "none: what any law has to beat",
    target="accuracy",
    link="identity",
)
