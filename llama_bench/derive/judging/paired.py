"""Whether two models differ on the same items, or only by chance.

Items that are hard for one model are hard for the other, so the difference of two scores is known
much better than either score: it has its own standard error, from the differences item by item
(Miller 2024, arXiv 2411.00640).

- right or wrong: McNemar's exact test (McNemar 1947; the exact form is the sign test). Of the n
  items on which only one of the two is right, each would be either's with probability 1/2 if there
  were no difference: p = min(1, 2 P(X <= min(b, c))), X ~ Binomial(n, 1/2).
- numbers: the paired t test of the mean difference.
- ratios of sums (bits per byte: nats over bytes of all items): the difference of the ratios, with
  the ratio estimator's standard error (Cochran, Sampling Techniques, 3rd ed., section 6.4) and t.

Many pairs are compared, and of twenty that do not differ one will seem to: `holm` makes p-values
that hold for a whole family of comparisons (Holm 1979, Scandinavian Journal of Statistics 6, 65).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, stdtr

LEVEL = 0.05  # a difference with a larger p is within noise


@dataclass(frozen=True)
class Comparison:
    """difference: first less second. only_first, only_second: items that one alone has right."""

    test: str
    items: int
    difference: float
    standard_error: float | None
    p: float | None
    only_first: int | None = None
    only_second: int | None = None


def compared(first: np.ndarray, second: np.ndarray, weight: np.ndarray | None = None) -> Comparison:
    """Values of the same items, (n,); with `weight` (n,) the score is sum(values) / sum(weight)."""
    items = len(first)
    weight = np.ones(items) if weight is None else weight
    difference = math.fsum(first - second) / math.fsum(weight)
    error = None
    if items > 1:
        left = first - second - difference * weight
        error = math.sqrt(math.fsum(left**2) * items / (items - 1)) / math.fsum(weight)
    if np.isin([first, second], (0, 1)).all() and (weight == 1).all():
        only = int(np.sum(first > second)), int(np.sum(second > first))
        return Comparison("McNemar", items, difference, error, mcnemar(*only), *only)
    return Comparison("paired t", items, difference, error, _t(difference, error, items))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of so uneven a split of the items on which the two differ."""
    discordant = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), discordant, 0.5)))


def _t(difference: float, error: float | None, items: int) -> float | None:
    if error is None:
        return None
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return 2 * float(stdtr(items - 1, -abs(difference / error)))


def holm(values: list[float | None]) -> list[float | None]:
    """p-values for a family: the smallest times m, the next times m - 1, never falling; a missing
    one stays missing and counts for nothing."""
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = highest
    return adjusted
