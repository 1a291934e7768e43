"""The same runs done again: losses or weights drawn anew, and the law fitted to each."""

from __future__ import annotations

import numpy as np

from llama_bench.derive.fitting import bootstrap, engine
from llama_bench.derive.fitting.bootstrap import Noise

# Rows per parameter from which whole rows are resampled: that holds where noise differs from run
# to run in any way (digitised points, few tokens), but needs rows enough to lose some.
CASES_FROM = 10


def by_cases(table, parameters: int, settings) -> bool:
    """Whether whole rows are resampled, rather than residuals about the fitted law."""
    if settings.bootstrap == "auto":
        return len(table) >= CASES_FROM * parameters
    return settings.bootstrap == "cases"


def problems(
    table,
    target: np.ndarray,
    weight: np.ndarray,
    residuals: np.ndarray,
    noise: Noise,
    count: int,
    cases: bool,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and weights of `count` repetitions of the n runs, each (count, n)."""
    shape = (count, len(target))
    if cases:
        groups = bootstrap.strata(table, bootstrap.SMALLEST_CASE_STRATUM)
        times = bootstrap.case_weights(groups, count, random)
        return np.broadcast_to(target, shape), times * weight
    drawn = noise.stretch * bootstrap.resample(noise, count, random)
    return target - residuals + drawn, np.broadcast_to(weight, shape)


def refit(surface, targets, weights, basins, settings, effort) -> np.ndarray:
    """Where each of B problems ends, (B, P): a few steps from each of the basins (k, P), and on
    from where it was lowest."""
    count = len(targets)

    def descend(start, iterations, tolerance):
        return engine.minimise(
            surface, targets, weights, start, settings.threshold, iterations, tolerance
        )

    start = np.repeat(basins[:1], count, axis=0)
    if len(basins) > 1:
        tried = [descend(np.repeat(basin[None], count, axis=0), 6, 1e-7) for basin in basins]
        lowest = np.argmin([found.objective for found in tried], axis=0)
        start = np.stack([found.theta for found in tried])[lowest, np.arange(count)]
    return descend(start, effort.draw_iterations, effort.draw_tolerance).theta
