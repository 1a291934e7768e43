"""Least squares of E + A g(x; b) with few points: solved for E and A at every b, then for b.

At a given b the law is linear, so that E and A have one best value each (variable projection: Golub
and Pereyra 1973, SIAM Journal on Numerical Analysis 10, 413), and only b is searched, over all of
its range: no start can miss the minimum. Intervals are the profile's (Bates and Watts 1988,
Nonlinear Regression Analysis and Its Applications, section 6.1): every value that some others make
fit with a sum of squares below S (1 + t^2 / f), S being the least one, f the points less three
parameters, and t Student's. With one degree of freedom t is 12.7: four points that lie off the law
leave an interval that may have no end, and that is then said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

LEVEL = 0.95
NAMES = ("E", "A", "b")
GRID = 2000
_ZOOMS = 3
_NEAREST = 1e-4  # to the lower end of b's range, over 1: there g has a pole
_ZERO = 1e-6  # of the losses' scale: below it a coefficient is zero


@dataclass(frozen=True)
class Profile:
    """status as of every fit (docs/laws.md): converged, at-bounds, ill-posed, too-few-points.

    `values` and `intervals` (low, high; infinite where open) by parameter; `freedom` are points
    less parameters. At a bound there are no intervals.
    """

    status: str
    why: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    freedom: int = 0


@dataclass(frozen=True)
class _Solved:
    """At each b (B,) the best E >= 0 and A >= 0, and the sum of squares; `spread` is that of g."""

    b: np.ndarray
    E: np.ndarray
    A: np.ndarray
    squares: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def fit(term: Callable, ends: tuple[float, float], x, y) -> Profile:
    """`term(x, b)` is (B, n), above zero for b inside `ends`, of which the lower is a pole."""
    from scipy.stats import t

    x, y = np.asarray(x, float), np.asarray(y, float)
    grid = ends[0] + np.geomspace(_NEAREST, ends[1] - ends[0], GRID)

    def at(b) -> _Solved:
        return _solved(term, x, y, b)

    best = _narrowed(at, ends[0], at(grid), lambda squares: squares <= squares.min())
    best = at(np.array([best.b[np.argmin(best.squares)]]))
    freedom = len(y) - len(NAMES)
    reach = t.ppf((1 + LEVEL) / 2, freedom) ** 2 / freedom
    noise = np.finfo(float).eps * float(y @ y)  # what rounding leaves of an exact fit
    limit = max(best.squares[0], noise) * (1 + reach)
    known = at(np.sort(np.append(grid, best.b)))
    inside = _narrowed(at, ends[0], known, lambda squares: squares <= limit)
    values = {name: float(getattr(best, name)[0]) for name in NAMES}
    bounds = float(grid[0]), float(grid[-1])
    intervals = _intervals(inside, y, limit, bounds)
    status, why = _judged(best, bounds, intervals, float(np.abs(y).max()))
    return Profile(status, why, values, {} if status == "at-bounds" else intervals, freedom)


def _solved(term, x, y, b) -> _Solved:
    g = term(x, b)
    mean = g.mean(axis=1)
    off = g - mean[:, None]
    spread = (off**2).sum(axis=1)
    A = off @ (y - y.mean()) / spread
    E = y.mean() - A * mean
    rising, below = A < 0, E < 0  # never both: y is above zero
    E = np.where(rising, y.mean(), np.where(below, 0.0, E))
    A = np.where(rising, 0.0, np.where(below, g @ y / (g**2).sum(axis=1), A))
    squares = ((y - E[:, None] - A[:, None] * g) ** 2).sum(axis=1)
    return _Solved(b, E, A, squares, mean, spread)


def _narrowed(at: Callable, pole: float, found: _Solved, wanted: Callable) -> _Solved:
    """The b whose squares are `wanted`, with their neighbours, on grids that become finer."""
    for _ in range(_ZOOMS):
        places = np.flatnonzero(wanted(found.squares))
        low = found.b[max(places[0] - 1, 0)] - pole
        high = found.b[min(places[-1] + 1, len(found.b) - 1)] - pole
        kept = found.b[[places[0], found.squares.argmin(), places[-1]]]
        found = at(np.unique(np.append(pole + np.geomspace(low, high, GRID), kept)))
    return found


def _intervals(found: _Solved, y, limit: float, bounds) -> dict[str, tuple[float, float]]:
    """The ends of each parameter over all b that fit; at one b, E and A move along an ellipse."""
    inside = np.flatnonzero(found.squares <= limit)
    slack = np.sqrt(np.maximum(limit - found.squares[inside], 0.0))
    A, E, spread = found.A[inside], found.E[inside], found.spread[inside]
    moves = {
        "A": slack / np.sqrt(spread),
        "E": slack * np.sqrt(1 / len(y) + found.mean[inside] ** 2 / spread),
    }
    ends = {
        name: (max(0.0, float((value - moves[name]).min())), float((value + moves[name]).max()))
        for name, value in (("E", E), ("A", A))
    }
    flat = float(((y - y.mean()) ** 2).sum())
    if flat <= limit:  # no term at all fits too
        ends["A"] = (0.0, ends["A"][1])
    ends["b"] = (float(found.b[inside[0]]), float(found.b[inside[-1]]))
    if found.b[inside[-1]] >= bounds[1]:
        ends |= {name: (ends[name][0], np.inf) for name in ("A", "b")}
    return {name: ends[name] for name in NAMES}


def _judged(best: _Solved, bounds, intervals, scale: float) -> tuple[str, str]:
    if best.A[0] <= _ZERO * scale * best.spread[0] ** -0.5:
        return "at-bounds", "A at its lower bound: the loss does not fall as members are added"
    for end, bound in zip(("lower", "upper"), bounds, strict=True):
        if np.isclose(best.b[0], bound, rtol=1e-9):
            return "at-bounds", f"b at its {end} bound"
    if best.E[0] <= _ZERO * scale:
        return "at-bounds", "E at its lower bound"
    if np.isinf(intervals["b"][1]):
        return "ill-posed", "the interval of b is open above"
    if intervals["E"][0] <= 0 or intervals["A"][0] <= 0:
        return "ill-posed", "the interval of E or of A reaches zero"
    return "converged", ""
