"""The mean slope of a number over a size: least squares, with its interval where there is one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# with one degree of freedom Student's t is 12.7: such an interval says nothing
LEAST_FREEDOM = 2


@dataclass(frozen=True)
class Slope:
    """Change of y per decade of x, with the half width of its 95 % interval (None: not known)."""

    per_decade: float
    half_width: float | None
    start: float  # fitted y, and
    low: float  # x, where a step of `factor` centred in the measured range begins
    high: float
    points: int

    @property
    def factor(self) -> float:
        """The step that is spoken of: ten where a decade was measured, else the whole range."""
        ratio = self.high / self.low
        return 10.0 if ratio >= 10 else ratio

    @property
    def change(self) -> float:
        return self.per_decade * math.log10(self.factor)

    @property
    def bounds(self) -> tuple[float, float] | None:
        if self.half_width is None:
            return None
        reach = self.half_width * math.log10(self.factor)
        return self.change - reach, self.change + reach


def slope(x, y, groups) -> Slope | None:
    """Least squares of y (n,) on log10 x (n,), one level per group. None below two points."""
    from scipy.special import stdtrit

    x, y, groups = np.asarray(x, float), np.asarray(y, float), np.asarray(groups)
    levels, place = np.unique(groups, return_inverse=True)
    decades = np.log10(x)
    centre = np.bincount(place, decades) / np.bincount(place)
    level = np.bincount(place, y) / np.bincount(place)
    dx, dy = decades - centre[place], y - level[place]
    spread = float(dx @ dx)
    if spread < 1e-12:
        return None
    per_decade = float(dx @ dy) / spread
    freedom = len(x) - len(levels) - 1
    half_width = None
    if freedom >= LEAST_FREEDOM:
        variance = float(np.sum((dy - per_decade * dx) ** 2)) / freedom
        half_width = float(stdtrit(freedom, 0.975)) * math.sqrt(variance / spread)
    low, high = float(x.min()), float(x.max())
    step = min(1.0, math.log10(high / low))
    middle = (math.log10(low) + math.log10(high)) / 2
    start = float(y.mean()) + per_decade * (middle - step / 2 - float(decades.mean()))
    return Slope(per_decade, half_width, start, low, high, len(x))
