"""What a residual costs: Huber's loss, summed; with an infinite threshold, half the square.

    rho(r) = r^2 / 2                    where |r| <= delta
             delta (|r| - delta / 2)    beyond

(Huber 1964; Hoffmann et al. 2022, section 3.3, with delta = 1e-3 on log loss.) It is *summed*
over the points. Dividing by their number changes no minimum, but makes gradients so small that a
minimiser with an absolute tolerance stops where it began; that is how the published constants of
Hoffmann et al. came about (Besiroglu et al. 2024, arXiv 2404.10102).
"""

from __future__ import annotations

import numpy as np


def slope(residual: np.ndarray, delta: float) -> np.ndarray:
    """d rho / d r, same shape as `residual`."""
    return np.clip(residual, -delta, delta)


def loss(residual: np.ndarray, delta: float) -> np.ndarray:
    """rho(r), same shape as `residual`; delta = inf gives r^2 / 2."""
    bent = slope(residual, delta)
    return bent * (residual - 0.5 * bent)


def curvature(residual: np.ndarray, delta: float) -> np.ndarray:
    """d2 rho / d r2: 1 within delta, 0 beyond."""
    return (np.abs(residual) <= delta).astype(float)
