"""Two models' scores on the same items, where a score is a function of sums over the items.

An item gives its statistics, (k,) numbers that add up: of a mean its value and 1, of bits per byte
nats and bytes, of perplexities log-likelihood and words (or bytes, or 1), of BLEU, chrF and TER the
counts of overlaps.py. What is no ratio of sums (paired.py tests those) is tested here:

- perplexity, exp(x) of a ratio x: the test is that of x; the standard error is the delta method's.
- BLEU, chrF, TER: the standard error is the paired bootstrap's (both models scored on the same
  drawn items; Koehn 2004, Statistical significance tests for machine translation evaluation). p is
  approximate randomization's (Riezler and Maxwell 2005, On some pitfalls in automatic evaluation):
  without a difference each item's two texts could as well be the other model's, so p is the share
  of random exchanges that part the scores as far; it holds for few items too.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from llama_bench import overlaps
from llama_bench.derive.judging import paired
from llama_bench.derive.judging.paired import Comparison

PERPLEXITIES = ("perplexity", "word_perplexity", "byte_perplexity")
_BITS = "bits_per_byte"
_DRAWS = 1_999


def score(metric: str, sums: np.ndarray) -> float:
    """Of the sums (k,) over some items; NaN where the sums define none."""
    if metric in overlaps.METRICS:
        return overlaps.score(metric, sums)
    if len(sums) != 2 or not sums[1]:
        return math.nan
    ratio = sums[0] / sums[1]
    if metric in PERPLEXITIES:
        return float(np.exp(-ratio))
    return float(-ratio / math.log(2)) if metric == _BITS else float(ratio)


def is_ratio(metric: str) -> bool:
    """Whether the score is sum(value) / sum(weight) of what `parts` gives."""
    return metric not in (*PERPLEXITIES, *overlaps.METRICS)


def parts(metric: str, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values, weights) of items (n, 2): bits, or nats, where the sums are of log-likelihoods."""
    values, weights = items.T
    if metric in PERPLEXITIES:
        return -values, weights
    return (-values / math.log(2) if metric == _BITS else values), weights


def compared(metric: str, first: np.ndarray, second: np.ndarray) -> Comparison:
    """The score of `first` less that of `second`: statistics (n, k) of the same items. Of ratios
    the weights must be the same."""
    if metric in overlaps.METRICS:
        return _resampled(metric, first, second)
    values, weight = parts(metric, first)
    against, _ = parts(metric, second)
    made = paired.compared(values, against, weight)
    return made if is_ratio(metric) else _exponential(made, values, against, weight)


def _exponential(made: Comparison, values, against, weight) -> Comparison:
    total, items = math.fsum(weight), len(weight)
    left, scores = np.zeros(items), []
    for sign, nats in ((1, values), (-1, against)):
        ratio = math.fsum(nats) / total
        scores.append(math.exp(ratio))
        left += sign * scores[-1] * (nats - ratio * weight)
    error = math.sqrt(math.fsum(left**2) * items / (items - 1)) / total if items > 1 else None
    return replace(made, difference=scores[0] - scores[1], standard_error=error)


def _resampled(metric: str, first: np.ndarray, second: np.ndarray) -> Comparison:
    items, whole = len(first), first.sum(0) + second.sum(0)

    def difference(sums: np.ndarray, others: np.ndarray) -> float:
        return score(metric, sums) - score(metric, others)

    observed = difference(first.sum(0), second.sum(0))
    if items < 2:
        return Comparison("randomization", items, observed, None, None)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(items, size=items) for _ in range(_DRAWS)]
    spread = np.std([difference(first[d].sum(0), second[d].sum(0)) for d in drawn], ddof=1)
    far = 0
    for _ in range(_DRAWS):
        kept = np.where(rng.integers(2, size=(items, 1)), first, second).sum(0)
        far += abs(difference(kept, whole - kept)) >= abs(observed) - 1e-9  # but for rounding
    return Comparison("randomization", items, observed, float(spread), (far + 1) / (_DRAWS + 1))
