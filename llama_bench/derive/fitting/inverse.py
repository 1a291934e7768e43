"""How much data a measured loss is worth: a falling curve of few points, read backwards.

The curve is made to fall by monotone regression (Barlow et al. 1972, Statistical Inference under
Order Restrictions; noise alone lets single points rise), and read between its points by straight
lines in log loss against log data, exact for a power law. Beyond its ends nothing is read: what no
run reached, no run has shown.
"""

from __future__ import annotations

import numpy as np

BEYOND, SHORT = np.inf, 0.0


def data_needed(data: np.ndarray, loss: np.ndarray, level: float) -> float:
    """The data at which a curve of positive `data` (n,) and `loss` (n,) comes down to `level`.

    BEYOND where it lies below the whole curve, SHORT where above.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(data, kind="stable")
    along = np.log(np.asarray(data, dtype=float)[order])
    falling = isotonic_regression(np.log(np.asarray(loss, dtype=float)[order]), increasing=False).x
    level = np.log(level)
    if level < falling[-1]:
        return BEYOND
    if level > falling[0]:
        return SHORT
    # where it stays level, the least data counts
    first = np.flatnonzero(np.concatenate([[True], np.diff(falling) < 0]))
    return float(np.exp(np.interp(-level, -falling[first], along[first])))
