"""What the repeats of one timing say together: middle, tail, and how sure the middle is.

Times of repeats have a long tail on one side (whatever disturbs a repeat makes it slower), so the
median stands for them and not the mean. Its interval is the percentile bootstrap's (Efron 1979,
section 3), which for a median needs no drawing: the chance that a resample's m-th smallest value
lies at or below the j-th smallest of n is that of at least m successes in n trials of chance j/n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LEVEL = 0.95


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """The columns of `cells` that say how long a repeat takes; {} of none."""
    if not len(seconds):
        return {}
    low, high = median_interval(seconds)
    median, p90, p99 = (float(np.quantile(seconds, share)) for share in (0.5, 0.9, 0.99))
    return {
        "repeats": len(seconds),
        "median_seconds": median,
        "median_low_seconds": low,
        "median_high_seconds": high,
        "p90_seconds": p90,
        "p99_seconds": p99,
    }


def median_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Both ends are among the values. Of an even number the lower end is that of the lower middle
    value, the upper end that of the upper one. One repeat has no interval."""
    from scipy.special import bdtrc

    ordered, count = np.sort(np.asarray(values, float)), len(values)
    if count < 2:
        return None, None
    shares = np.arange(1, count + 1) / count
    tail = (1 - LEVEL) / 2
    lower, upper = (count + 1) // 2, count // 2 + 1
    low, high = (
        ordered[np.argmax(bdtrc(middle - 1, count, shares) >= share)]
        for middle, share in ((lower, tail), (upper, 1 - tail))
    )
    return float(low), float(high)


def mean_rate(rates: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation, as llama-bench prints them."""
    if not len(rates):
        return None, None
    spread = float(np.std(rates, ddof=1)) if len(rates) > 1 else None
    return float(np.mean(rates)), spread
