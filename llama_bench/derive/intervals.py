"""From a fit to points never run: the point, and the interval for the loss of one new run.

A draw's prediction is the law under that draw's parameters plus the noise of one run; quantiles
over the draws are the interval. What the data do not determine has no point and an interval
without ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama_bench.derive import bootstrap
from llama_bench.derive.laws.law import Law
from llama_bench.derive.regression import Regression

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
    draws = -(-4000 // len(fit.noise.pool))
    noise = bootstrap.resample(fit.noise, draws, random)
    return np.quantile(noise, (np.arange(KEPT_NOISE) + 0.5) / KEPT_NOISE).tolist()


def forecast(law: Law, kept: dict, columns, levels, widening=None) -> Forecast:
    """Predict `columns` (name -> (m,)) at every level. widening: level -> factor of the widths."""
    surface = law.bind(columns, kept["reference"])
    theta, draws = np.array(kept["theta"]), np.array(kept["draws"])
    with np.errstate(over="ignore"):
        point = surface.value(theta[None])[0]
        drawn = surface.value(draws)
    noise = np.random.default_rng(1).permutation(
        np.resize(np.array(kept["noise"]), len(draws))
    )
    spread = drawn + noise[:, None]
    blind = ~np.isfinite(point)
    generic = np.array(kept["generic"])
    for direction in np.array(kept["null"]).reshape(-1, len(theta)):
        here, moved = surface.value(np.stack([generic, generic + NUDGE * direction]))
        blind |= np.abs(moved - here) > 1e-3 * NUDGE
    intervals = {}
    for level in levels:
        ends = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2], axis=0)
        factor = (widening or {}).get(level, 1.0)
        low, high = (law.off_link(point + factor * (end - point)) for end in ends)
        least = 0.0 if law.link == "log" else -np.inf
        intervals[level] = (np.where(blind, least, low), np.where(blind, np.inf, high))
    return Forecast(np.where(blind, np.nan, law.off_link(point)), intervals)
