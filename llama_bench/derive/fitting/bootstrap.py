"""How far the answer would move, had the same runs been done again.

The design (sizes, budgets) is kept and the losses are drawn anew: the fitted law, plus residuals
resampled within their stratum (a budget, a size, or a range of compute), because noise is rarely
the same for small and large runs. These corrections make the intervals of small tables hold; each
of them was measured (benchmarks/fit.py, coverage):

- residuals are scaled up by the degrees of freedom that the fit took from them (`freedom`), and
  those that it took whole are left out: least absolute deviations pass through P of n points
  exactly, and residuals of 0 are no noise (McKean and Schrader 1987, Statistical Data Analysis
  Based on the L1 Norm, p. 297);
- they are smoothed by three quarters of their spread, because ten residuals have gaps;
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

    strata: (n,) stratum of each row, 0 to k - 1. shapes: k arrays of residuals, centred, of unit
    spread. spreads: (k,) standard deviations. seed: that between seeds, or None. stretch:
    Student's t over the normal quantile at 90 %.
    """

    strata: np.ndarray
    shapes: tuple[np.ndarray, ...]
    spreads: np.ndarray
    seed: float | None
    stretch: float


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


def variance_ratio(threshold: float) -> float:
    """Variance of an estimate by Huber's loss over that by least squares, in normal noise.

    threshold: Huber's, in standard deviations of the noise. 1 for squares, pi / 2 for absolute
    deviations; E psi^2 / (E psi')^2 (Huber 1964, equation 4.10).
    """
    if threshold > 10:
        return 1.0
    within = math.erf(threshold / math.sqrt(2))
    density = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
    return (within - 2 * threshold * density + threshold**2 * (1 - within)) / within**2


def freedom(residuals: np.ndarray, parameters: int, delta: float) -> tuple[float, float]:
    """Degrees of freedom that a fit left in the squares of its residuals, and `variance_ratio`.

    A residual is e - x (b' - b), and b' - b = (X'X)^-1 X' psi(e) / E psi' but for higher orders;
    its variance is sigma^2 (1 - (2 - v) h) with leverage h and v the ratio, because
    E e psi(e) = sigma^2 E psi' in normal noise (Stein's lemma). They sum to n - (2 - v) P: least
    squares take P degrees from their own squares, least absolute deviations 0.43 P.
    """
    rows = len(residuals)
    squares = float(np.sum(residuals**2))
    left, ratio = float(max(rows - parameters, 1)), 1.0
    for _ in range(10):
        spread = math.sqrt(squares / left)
        ratio = variance_ratio(delta / spread if spread > 0 else math.inf)
        left = max(rows - (2 - ratio) * parameters, 1.0)
    return left, ratio


def measure(table, needs, target, residuals, parameters: int, delta: float) -> Noise:
    """The noise that `residuals` (n,) of a fit with that many parameters show."""
    rows = len(residuals)
    left, ratio = freedom(residuals, parameters, delta)
    groups = strata(table)
    overall = math.sqrt(float(np.sum(residuals**2)) / left)
    seed = seed_noise(table, needs, target)
    taken = np.zeros(rows, dtype=bool)
    whole = round(parameters * (ratio - 1) / (math.pi / 2 - 1))
    taken[np.argsort(np.abs(residuals), kind="stable")[:whole]] = True
    shapes, spreads = [], []
    for group in range(groups.max() + 1):
        mine = residuals[groups == group]
        own = math.sqrt(float(np.mean(mine**2)) * rows / left)
        # A stratum's own spread is a noisy estimate: shrink it to the overall one.
        share = len(mine) / (len(mine) + SMALLEST_STRATUM)
        spreads.append(max(math.sqrt(share * own**2 + (1 - share) * overall**2), seed or 0.0))
        shapes.append(_shape(mine, taken[groups == group]))
    stretch = student_stretch(max(rows - parameters, 1))
    return Noise(groups, tuple(shapes), np.array(spreads), seed, stretch)


def _shape(residuals: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Residuals of one stratum, centred, of unit spread; half of them are kept at least."""
    order = np.argsort(np.abs(residuals), kind="stable")
    kept = residuals[order[min(int(taken.sum()), len(residuals) // 2) :]]
    centred = kept - kept.mean()
    size = math.sqrt(float(np.mean(centred**2)))
    return centred / size if size > 0 else centred


def resample(noise: Noise, draws: int, random: np.random.Generator) -> np.ndarray:
    """Noise for `draws` repetitions of the n runs, (draws, n), as wide as it was measured."""
    result = np.empty((draws, len(noise.strata)))
    for group, (shape, spread) in enumerate(zip(noise.shapes, noise.spreads, strict=True)):
        mine = np.flatnonzero(noise.strata == group)
        picked = shape[random.integers(len(shape), size=(draws, len(mine)))]
        smooth = random.normal(0.0, SMOOTHING, size=picked.shape)
        result[:, mine] = spread * (picked + smooth) / math.sqrt(1 + SMOOTHING**2)
    return result


def case_weights(groups: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """How often each row is drawn when rows are resampled within their stratum, (draws, n)."""
    result = np.zeros((draws, len(groups)))
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        result[:, mine] = random.multinomial(
            len(mine), np.full(len(mine), 1.0 / len(mine)), size=draws
        )
    return result
