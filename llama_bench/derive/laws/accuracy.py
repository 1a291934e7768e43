"""Accuracy: a sigmoid of a task's loss, or of compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from llama_bench.derive.fitting import starts
from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.laws.law import Law, power_law
from llama_bench.derive.laws.surface import Surface
from llama_bench.fields import Real


class DirectSettings(FitSettings):
    """chance: accuracy of guessing, held fixed as the sigmoid's floor; ceiling: that of a perfect
    model, held fixed as its top. Each is fitted where it is null: runs far below the top do not
    determine it. Squares by default: a share of a hundred items is noisy everywhere, and holds no
    outlier for Huber's loss to leave out."""

    loss_function: Literal["huber", "squared"] = "squared"
    chance: Real | None = Field(None, ge=0, lt=1)
    ceiling: Real | None = Field(None, gt=0, le=1)


class TwoStepSettings(DirectSettings):
    """first: what the task's loss is predicted from: `flops`, or `params-tokens` (size and tokens
    each with a power of its own, as in the OLMo ladder)."""

    first: Literal["flops", "params-tokens"] = "flops"


@power_law(
    needs=("flops",),
    exponents={"g": (0.0, 1.5)},
    target="task_loss",
    name="two_step",
    paper="Bhagia et al. 2024, arXiv 2412.04403, equation 1, in compute",
)
def task_loss_of_compute(x):
    """l(C) = E + K / C^g

    l: loss of the right answer of a task, nats (per token or byte, as the table has it).
    """
    return {"K": {"g": -x["flops"]}}


@power_law(
    needs=("params", "tokens"),
    exponents={"alpha": (0.0, 3.0), "beta": (0.0, 3.0)},
    target="task_loss",
    name="two_step",
    paper="Bhagia et al. 2024, arXiv 2412.04403, equation 1",
)
def task_loss_of_size(x):
    """l(N, D) = E + A / N^alpha + B / D^beta

    l: loss of the right answer of a task, nats (per token or byte, as the table has it).
    """
    return {"A": {"alpha": -x["params"]}, "B": {"beta": -x["tokens"]}}


class Sigmoid(Surface):
    """h = low + (high - low) / (1 + exp(-k (x - m))), on the scale of the accuracy itself.

    theta = [low, high, log k, m]; `low` is left out where chance is given, `high` where the ceiling
    is. x is centred and scaled to a standard deviation near 1 by the caller, and rises with
    accuracy.
    """

    def __init__(self, x: np.ndarray, chance: float | None, ceiling: float | None = None):
        self.x, self.chance, self.ceiling, self.rows = x, chance, ceiling, len(x)
        # name -> (lower bound, upper bound, generic value)
        places = {"low": (0.0, 1.0, 0.2)} if chance is None else {}
        places |= {"high": (chance or 0.0, 1.0, 0.9)} if ceiling is None else {}
        places |= {"k": (np.log(1e-2), np.log(50.0), 0.0), "m": (-8.0, 8.0, 0.0)}
        self.names = [*places]
        self.lower, self.upper, self.generic = (
            np.array(c) for c in zip(*places.values(), strict=True)
        )

    def _parts(self, theta):
        columns = [theta[:, i : i + 1] for i in range(theta.shape[1])]
        floor = columns.pop(0) if self.chance is None else np.full_like(columns[0], self.chance)
        top = columns.pop(0) if self.ceiling is None else np.full_like(columns[0], self.ceiling)
        log_k, middle = columns
        k = np.exp(log_k)
        with np.errstate(over="ignore"):
            share = 1.0 / (1.0 + np.exp(-k * (self.x - middle)))
        return floor, top, k, middle, share

    def value(self, theta: np.ndarray) -> np.ndarray:
        floor, top, _, _, share = self._parts(theta)
        return floor + (top - floor) * share

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        floor, top, k, middle, share = self._parts(theta)
        bell = (top - floor) * share * (1.0 - share)
        columns = [] if self.chance is not None else [1.0 - share]
        columns += [] if self.ceiling is not None else [share]
        columns += [bell * k * (self.x - middle), -bell * k]
        return np.stack(columns, axis=2)

    def starts(self, count: int, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        theta = np.empty((count, len(self.names)))
        if self.chance is None:
            theta[:, 0] = max(0.0, target.min() - 0.02)
        theta[:, -2:] = starts.spread(count, np.array([-2.0, -2.5]), np.array([2.5, 2.5]))
        if self.ceiling is None:
            theta[:, -3] = min(1.0, target.max() + 0.02)
            theta[: count // 2, -3] = 1.0
        return theta


def sigmoid_law(
    name: str,
    column: str,
    rising: bool,
    settings: DirectSettings,
    formula: str,
    paper: str,
    middle: str,
) -> Law:
    """Accuracy as a sigmoid of one column; `rising`: of its logarithm, else of minus its value."""
    fitted = {"low": settings.chance is None, "high": settings.ceiling is None}
    ends = tuple(name for name, free in fitted.items() if free)

    def scaled(values, reference):
        if rising:
            return (np.log(values) - np.log(reference[column])) / reference["spread"]
        return -(values - reference[column]) / reference["spread"]

    def bind(columns: Mapping[str, np.ndarray], reference: Mapping[str, float]) -> Surface:
        return Sigmoid(scaled(columns[column], reference), settings.chance, settings.ceiling)

    def natural(theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
        spread, at = reference["spread"], theta[:, -1]
        with np.errstate(over="ignore"):
            centre = (
                reference[column] * np.exp(at * spread)
                if rising
                else reference[column] - at * spread
            )
        own = {end: theta[:, place] for place, end in enumerate(ends)}
        return own | {"k": np.exp(theta[:, -2]) / spread, middle: centre}

    return Law(
        name,
        (column,),
        (*ends, "k", middle),
        bind,
        natural,
        formula,
        paper,
        target="accuracy",
        link="identity",
        spread=np.log if rising else np.asarray,
    )


def direct(settings: DirectSettings) -> Law:
    """acc(C) = low + (high - low) / (1 + (C_mid / C)^k), C in FLOPs (Owen 2024)."""
    return sigmoid_law(
        "direct",
        "flops",
        True,
        settings,
        "acc(C) = low + (high - low) / (1 + (C_mid / C)^k)",
        "Owen 2024, arXiv 2401.04757, section 3: a sigmoid of log compute",
        "C_mid",
    )


def from_task_loss(settings: DirectSettings) -> Law:
    """acc(l) = low + (high - low) / (1 + exp(k (l - l_mid))), l the task's loss in nats."""
    return sigmoid_law(
        "two_step",
        "task_loss",
        False,
        settings,
        "acc(l) = low + (high - low) / (1 + exp(k (l - l_mid)))",
        "Bhagia et al. 2024, arXiv 2412.04403, equation 2",
        "l_mid",
    )
