"""From a fit to points never run: the point, and the interval for the loss of one new run.

A draw's prediction is the law under that draw's parameters plus the noise of one run; quantiles
over the draws are the interval. What the data do not determine has no point and an interval
without ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama_bench.derive.fitting import bootstrap
from llama_bench.derive.fitting.regression import Regression
from llama_bench.derive.laws.law import Law

KEPT_DRAWS = 1000
KEPT_NOISE = 200
NUDGE = 1e-4


@dataclass(frozen=True)
class Forecast:
    """point (m,), and one (low, high) pair of (m,) arrays for each level; NaN and inf as said."""

    point: np.ndarray
    intervals: dict[float, tuple[np.ndarray, np.ndarray]]


def kept(fit: Regression) -> dict | None:
    """What `predict` needs, as JSON: coordinates, best parameters, draws, directions, noise."""
    if fit.theta is None:
        return None
    return {
        "reference": fit.reference,
        "names": fit.surface.names,
        "theta": fit.theta.tolist(),
        "draws": [[float(f"{v:.9g}") for v in draw] for draw in fit.draws[:KEPT_DRAWS]],
        "generic": fit.surface.generic.tolist(),
        "null": fit.null.T.tolist(),
        "noise": _noise(fit),
    }


def _noise(fit: Regression) -> list[float]:
    """Quantiles of the noise of one run, smoothed and stretched as the draws were."""
    random = np.random.default_rng(0)
    draws = -(-4000 // len(fit.noise.strata))
    noise = fit.noise.stretch * bootstrap.resample(fit.noise, draws, random)
    return np.quantile(noise, (np.arange(KEPT_NOISE) + 0.5) / KEPT_NOISE).tolist()


def forecast(law: Law, kept: dict, columns, levels, widening=None) -> Forecast:
    """Predict `columns` (name -> (m,)) at every level. widening: level -> factor of the widths."""
    point, spread = drawn(law, kept, columns)
    return spanned(law, point, spread, ~np.isfinite(point), levels, widening)


def drawn(law: Law, kept: dict, columns) -> tuple[np.ndarray, np.ndarray]:
    """The law's h (m,), NaN where it is not determined, and draws of one run's h (B, m)."""
    surface = law.bind(columns, kept["reference"])
    theta, draws = np.array(kept["theta"]), np.array(kept["draws"])
    with np.errstate(all="ignore"):
        point = surface.value(theta[None])[0]
        spread = surface.value(draws) + noise(kept, len(draws))[:, None]
    blind = ~np.isfinite(point)
    generic = np.array(kept["generic"])
    for direction in np.array(kept["null"]).reshape(-1, len(theta)):
        here, moved = surface.value(np.stack([generic, generic + NUDGE * direction]))
        blind |= np.abs(moved - here) > 1e-3 * NUDGE
    return np.where(blind, np.nan, point), spread


def noise(kept: dict, count: int) -> np.ndarray:
    """The noise of one run for each of `count` draws: always the same, in an order of its own."""
    values = np.resize(np.array(kept["noise"]), count)
    return np.random.default_rng(1).permutation(values)


def spanned(law: Law, point, spread, blind, levels, widening=None) -> Forecast:
    """point (m,) and draws (B, m) on the law's scale as a Forecast in the target's units.

    A wider level never lies inside a narrower one, whatever their widenings.
    """
    least = {"log": 0.0, "identity": -np.inf}[law.link]
    lowest, highest = point, point
    intervals = {}
    for level in sorted(levels):
        ends = np.nanquantile(spread, [(1 - level) / 2, (1 + level) / 2], axis=0)
        factor = _factor(widening, level)
        lowest = np.fmin(lowest, point + factor * (ends[0] - point))
        highest = np.fmax(highest, point + factor * (ends[1] - point))
        low, high = law.off_link(lowest), law.off_link(highest)
        if law.target == "accuracy":
            low, high, least = np.clip(low, 0, 1), np.clip(high, 0, 1), 0.0
        most = 1.0 if law.target == "accuracy" else np.inf
        intervals[level] = (np.where(blind, least, low), np.where(blind, most, high))
    return Forecast(np.where(blind, np.nan, law.off_link(point)), intervals)


def _factor(widening: dict | None, level: float) -> float:
    """The widening of a level; one that was not tested gets that of the nearest that was."""
    if not widening:
        return 1.0
    return widening[min(widening, key=lambda known: abs(known - level))]
