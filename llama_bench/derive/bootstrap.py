"""How far the answer would move, had the same runs been done again.

The design (sizes, budgets) is kept and the losses are drawn anew: the fitted law, plus residuals
resampled within their stratum (a budget, a size, or a range of compute), because noise is rarely
the same for small and large runs. Three corrections make the intervals of small tables hold; each
of them was measured (benchmarks/fit.py, coverage):

- residuals are scaled up to n - P degrees of freedom, and smoothed by three quarters of their
  spread: a fit of near-absolute deviations passes through P points exactly, so that raw residuals
  are too often 0;
- the noise is never below the measured seed noise: repeats of one (size, tokens) that differ only
  in their seed;
- it is widened by Student's t over the normal quantile, for a spread that is itself an estimate.

Resampling whole rows (`cases`) is offered too. It needs no law to hold, but on twenty points many
draws lose the rows that determine a parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SMALLEST_STRATUM = 8
# Whole rows are resampled in larger ones: k rows show (k - 1) / k of their variance.
SMALLEST_CASE_STRATUM = 20
SMOOTHING = 0.75


@dataclass(frozen=True)
class Noise:
    """The spread of one run about the law, on the scale of the fit.

    pool: (n,) residuals, centred, scaled to the spread of their stratum, smoothing not included.
    strata: (n,) stratum of each row. seed: measured standard deviation between seeds, or None.
    stretch: Student's t over the normal quantile at 90 %.
    """

    pool: np.ndarray
    strata: np.ndarray
    seed: float | None
    stretch: float

    @property
    def spread(self) -> float:
        return float(np.sqrt(np.mean(self.pool**2)))


def student_stretch(freedom: int) -> float:
    """The 95 % quantile of Student's t with `freedom` degrees over that of the normal."""
    z, p = 1.6448536269514722, 0.95
    if freedom <= 1:
        return math.tan(math.pi * (p - 0.5)) / z
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p))) / z
    series = (  # Abramowitz and Stegun 26.7.5
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**i for i, term in enumerate(series)) / z


def strata(table, smallest: int = SMALLEST_STRATUM) -> np.ndarray:
    """(n,) stratum of each row: its budget, else its size, where these repeat; else its compute.

    Strata of fewer than `smallest` rows join their neighbour, in order of compute or size.
    """
    rows = len(table)
    for name in ("budget", "params", "flops"):
        if name in table:
            values = table[name]
            if name == "flops" or len(np.unique(values)) <= rows / 3:
                break
    else:
        return np.zeros(rows, dtype=int)
    order = np.argsort(values, kind="stable")
    result = np.zeros(rows, dtype=int)
    current, members = 0, 0
    for place, row in enumerate(order):
        changed = place and values[row] > values[order[place - 1]]
        if changed and members >= smallest and rows - place >= smallest:
            current, members = current + 1, 0
        result[row] = current
        members += 1
    return result


def seed_noise(table, needs, target: np.ndarray) -> float | None:
    """Pooled standard deviation of the target within groups of rows equal in all of `needs`."""
    keys = np.stack([table[name] for name in needs], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.ravel()
    counts = np.bincount(group)
    freedom = int((counts - 1).sum())
    if freedom < 1:
        return None
    means = np.bincount(group, weights=target) / counts
    return float(np.sqrt(np.sum((target - means[group]) ** 2) / freedom))


def measure(table, needs, target, residuals, parameters: int) -> Noise:
    """The noise that `residuals` (n,) of a fit with that many parameters show."""
    rows = len(residuals)
    freedom = max(rows - parameters, 1)
    groups = strata(table)
    overall = math.sqrt(float(np.sum(residuals**2)) / freedom)
    seed = seed_noise(table, needs, target)
    pool = np.empty(rows)
    for group in np.unique(groups):
        mine = groups == group
        shape = residuals[mine] - residuals[mine].mean()
        own = math.sqrt(float(np.mean(residuals[mine] ** 2)) * rows / freedom)
        # A stratum's own spread is a noisy estimate: shrink it to the overall one.
        share = mine.sum() / (mine.sum() + SMALLEST_STRATUM)
        spread = max(math.sqrt(share * own**2 + (1 - share) * overall**2), seed or 0.0)
        size = math.sqrt(float(np.mean(shape**2)))
        pool[mine] = shape * (spread / size) if size > 0 else 0.0
    return Noise(pool, groups, seed, student_stretch(freedom))


def resample(noise: Noise, draws: int, random: np.random.Generator) -> np.ndarray:
    """Noise for `draws` repetitions of the n runs, (draws, n)."""
    result = np.empty((draws, len(noise.pool)))
    for group in np.unique(noise.strata):
        mine = np.flatnonzero(noise.strata == group)
        picked = noise.pool[mine][random.integers(len(mine), size=(draws, len(mine)))]
        spread = float(np.sqrt(np.mean(noise.pool[mine] ** 2)))
        smooth = random.normal(0.0, SMOOTHING * spread, size=picked.shape)
        result[:, mine] = (picked + smooth) / math.sqrt(1 + SMOOTHING**2)
    return result * noise.stretch


def case_weights(groups: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """How often each row is drawn when rows are resampled within their stratum, (draws, n)."""
    result = np.zeros((draws, len(groups)))
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        result[:, mine] = random.multinomial(
            len(mine), np.full(len(mine), 1.0 / len(mine)), size=draws
        )
    return result
