"""Whether two models differ on the same items, or only by chance.

Items that are hard for one model are hard for the other, so the difference of two scores is known
much better than either score: it has its own standard error, from the differences item by item
(Miller 2024, arXiv 2411.00640).

- right or wrong: McNemar's exact test (McNemar 1947; the exact form is the sign test). Of the n
  items on which only one of the two is right, each would be either's with probability 1/2 if there
  were no difference: p = min(1, 2 P(X <= min(b, c))), X ~ Binomial(n, 1/2).
- numbers: the paired t test of the mean difference; of few items, whose differences a normal law
  may not describe, the sign-flip test (Fisher 1935, The Design of Experiments, section 21): without
  a difference each item's could as well have the other sign, so p is the share of all ways to
  choose the signs whose sum is as far from 0. Where the ways are many, of some drawn at random,
  with the observed one among them (Phipson and Smyth 2010, arXiv 1603.05766).
- ratios of sums (bits per byte: nats over bytes of all items): the difference of the ratios, with
  the ratio estimator's standard error (Cochran, Sampling Techniques, 3rd ed., section 6.4) and t;
  of few items sign flips, as the weights are those of both.

Many pairs are compared, and of twenty that do not differ one will seem to: `holm` makes p-values
that hold for a whole family of comparisons (Holm 1979, Scandinavian Journal of Statistics 6, 65).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, stdtr

LEVEL = 0.05  # a difference with a larger p is within noise
FEW = 30  # items up to which signs are flipped
_ALL_WAYS = 14  # items up to which all of them are tried: 8,192 without the mirrored ones
_DRAWS = 9_999


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
    if 1 < items <= FEW:
        return Comparison("sign flip", items, difference, error, sign_flip(first - second))
    return Comparison("paired t", items, difference, error, _t(difference, error, items))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of so uneven a split of the items on which the two differ."""
    discordant = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), discordant, 0.5)))


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided p of a sum so far from 0; the same for the same numbers, drawn or not."""
    items = len(differences)
    if items <= _ALL_WAYS:  # the first sign stays: the mirrored ways are as far from 0
        ways = np.arange(2 ** (items - 1))[:, None] >> np.arange(items) & 1
    else:
        ways = np.random.default_rng(0).integers(2, size=(_DRAWS, items))
    sums = np.abs((1 - 2 * ways) @ differences)
    least = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()  # but for rounding
    far = int(np.sum(sums >= least))
    return far / len(ways) if items <= _ALL_WAYS else (far + 1) / (_DRAWS + 1)


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
