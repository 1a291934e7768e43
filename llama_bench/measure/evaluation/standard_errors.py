"""How far a score may be off: standard errors of means, of ratios, and by resampling the items.

Of a mean, the usual one; of a ratio of sums (bits per byte is nats over bytes of all documents)
the ratio estimator's, by linearisation (Cochran, Sampling Techniques, 3rd ed., section 6.4); of
exp(x) the delta method's; of what is no such thing (macro F1, chrF, calibration) the bootstrap's
(Efron 1979): the standard deviation of the score over items drawn again with replacement. All treat
the items as independent. lm-eval draws 100,000 bootstraps for some of them and has none for others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from llama_bench import overlaps

REPLICATES = 100  # a standard error is then known to 7 %
SEED = 0

_LN2 = math.log(2)

# metrics of lm-eval whose value is exp(-x) of a mean or ratio x of log-likelihoods
_EXPONENTIAL = ("perplexity", "word_perplexity", "byte_perplexity")
OF_LIKELIHOODS = ("bits_per_byte", *_EXPONENTIAL)


def of_metric(metric: str, value: float, values: list, aggregate: Callable | None) -> float | None:
    """Of a score from what lm-eval logged for each item: numbers, (log-likelihood, weight) pairs,
    or whatever `aggregate` makes the score of. None where there is none to be had."""
    if len(values) < 2 or not math.isfinite(value):
        return None
    error = _of_ratio(metric, value, values)
    if error is None:
        error = _of_mean(metric, value, values)
    if error is None and metric in overlaps.METRICS:
        error = _of_corpus(metric, values)
    if error is None and aggregate is not None:
        error = resampled(lambda drawn: aggregate([values[i] for i in drawn]), len(values))
    return error if error is not None and math.isfinite(error) else None


def _of_ratio(metric: str, value: float, values: list) -> float | None:
    if metric not in OF_LIKELIHOODS:
        return None
    if not all(isinstance(v, (tuple, list)) and len(v) == 2 for v in values):
        return None
    error = ratio_error([-ll for ll, _ in values], [weight for _, weight in values])
    return error * (1 / _LN2 if metric == "bits_per_byte" else value)


def _of_mean(metric: str, value: float, values: list) -> float | None:
    if not all(isinstance(v, (int, float)) for v in values):
        return None
    error = mean_error([float(v) for v in values])
    if metric in _EXPONENTIAL:
        return error * value
    mean = math.fsum(values) / len(values)
    return error if math.isclose(mean, value, rel_tol=1e-9, abs_tol=1e-12) else None


def mean_error(values: list[float]) -> float | None:
    """Standard deviation of the items over the root of their number."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return math.sqrt(squares / (len(values) - 1) / len(values))


def ratio_error(amounts: list[float], weights: list[float]) -> float:
    """Standard error of sum(amounts) / sum(weights) over items drawn together."""
    total = math.fsum(weights)
    ratio = math.fsum(amounts) / total
    squares = math.fsum((a - ratio * w) ** 2 for a, w in zip(amounts, weights, strict=True))
    return math.sqrt(squares * len(weights) / (len(weights) - 1)) / total


def resampled(statistic: Callable[[np.ndarray], float], items: int) -> float | None:
    """Standard deviation of a statistic of item numbers over REPLICATES draws of all items."""
    if items < 2:
        return None
    rng = np.random.default_rng(SEED)
    try:
        drawn = [float(statistic(rng.integers(items, size=items))) for _ in range(REPLICATES)]
    except (ArithmeticError, ValueError):  # undefined for some draw
        return None
    return float(np.std(drawn, ddof=1))


def _of_corpus(metric: str, values: list) -> float | None:
    """BLEU, chrF and TER are functions of sums over segments: counting n-grams once is enough."""
    counted = [of_item(metric, value) for value in values]
    if None in counted:  # then the long way
        return None
    counts = np.array(counted)
    return resampled(lambda drawn: overlaps.score(metric, counts[drawn].sum(0)), len(counts))


def of_item(metric: str, value: Any) -> list[float] | None:
    """What one item gives to the sums that a score is a function of: of a mean (value, 1), of bits
    per byte and perplexities (log-likelihood, weight), of BLEU, chrF and TER their counts. None of
    any other score."""
    if isinstance(value, Real):
        return [float(value), 1.0]
    if not (isinstance(value, (tuple, list)) and len(value) == 2):
        return None
    first, second = value
    if metric in overlaps.METRICS:
        references = [first] if isinstance(first, str) else list(first)
        return overlaps.counts(metric, references, second if isinstance(second, str) else second[0])
    if metric in OF_LIKELIHOODS and isinstance(first, Real):
        return [float(first), float(second)]
    return None


def of_weighted_means(value: float, parts: list[tuple[float, float | None, int]]) -> float | None:
    """Of a group's score that is the mean of its tasks' (value, standard error, items), by items or
    evenly; None where it is neither."""
    if not parts or any(error is None for _, error, _ in parts):
        return None
    total = sum(items for _, _, items in parts)
    for weights in ([n / total for *_, n in parts], [1 / len(parts)] * len(parts)):
        mean = math.fsum(w * part[0] for w, part in zip(weights, parts, strict=True))
        if math.isclose(mean, value, rel_tol=1e-9, abs_tol=1e-12):
            squares = ((w * part[1]) ** 2 for w, part in zip(weights, parts, strict=True))
            return math.sqrt(math.fsum(squares))
    return None
