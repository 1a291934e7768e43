"""A measured number with its error: how it is shown, its differences, and its trend with size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llama_bench.derive.words import show
from llama_bench.derive.words.scores import WIDTH


@dataclass(frozen=True)
class Number:
    """A mean with its standard error, where that is known. Of a difference `p` is the paired
    test's, `apart` whether it holds among all sizes."""

    value: float
    error: float | None = None
    p: float | None = None
    apart: bool | None = None

    @property
    def shown(self) -> str:
        return show.plus_minus(self.value, WIDTH * (self.error or 0))

    @property
    def signed(self) -> str:
        return ("+" if self.value > 0 else "") + self.shown


def share(value: float | None, items: float | None) -> Number | None:
    """A share of items, with its binomial error."""
    if value is None:
        return None
    return Number(value, math.sqrt(value * (1 - value) / items) if items else None)


def less(one: Number, other: Number) -> Number:
    """A difference of two that were not paired: too wide where both are of the same items."""
    errors = (one.error, other.error)
    error = None if None in errors else math.hypot(*errors)
    return Number(one.value - other.value, error)


def trend(points: list[tuple[float, Number]]) -> Number | None:
    """Change per tenfold of the size, of numbers at sizes: weighted least squares.

    Its error is the larger of two: what the errors of the numbers make of it, and what their
    scatter about the line does, by Student's t (over 1.96, so that 1.96 errors are the interval).
    None below two sizes or where an error is not known.
    """
    from scipy.special import stdtrit

    if len({params for params, _ in points}) < 2 or any(not n.error for _, n in points):
        return None
    x = np.log10([params for params, _ in points])
    y = np.array([number.value for _, number in points])
    weight = np.array([number.error for _, number in points]) ** -2.0
    x = x - np.average(x, weights=weight)
    spread = float(weight @ x**2)
    slope = float(weight @ (x * y)) / spread
    left = y - np.average(y, weights=weight) - slope * x
    error, freedom = spread**-0.5, len(points) - 2
    if freedom > 0:
        scatter = math.sqrt(float(weight @ left**2) / freedom / spread)
        error = max(error, float(stdtrit(freedom, 0.975)) / WIDTH * scatter)
    return Number(slope, error)
