"""The minimum of one budget's curve of loss over size: by a parabola, or by Akima's spline.

Hoffmann et al. 2022 (approach 2) fit a parabola to loss over log N. The curves are not symmetric,
which moves the vertex: Porian et al. 2024 (arXiv 2406.19146) interpolate log loss over log N with
Akima's spline instead, which bends to the neighbouring points only.
"""

from __future__ import annotations

import numpy as np

GRID = 1024
NEAREST = 3
FEWEST = {"akima": 4, "parabola": 3}


def minimum(log_size: np.ndarray, log_loss: np.ndarray, method: str) -> np.ndarray:
    """Where the curve through the points is lowest: log_size (k,), log_loss (B, k) -> (B, 2).

    The columns are log N* and log L*. NaN where the lowest place is an end of the points: then
    the minimum lies beyond them. log_size must rise; `method` is "akima" or "parabola".
    """
    if method == "parabola":
        return _vertex(log_size, log_loss)
    return _lowest_of_spline(log_size, log_loss)


def _vertex(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Through the lowest point of the first curve and NEAREST points on either side of it: far
    from the minimum no isoFLOP curve is a parabola."""
    lowest = int(np.argmin(y[0]))
    near = slice(max(0, lowest - NEAREST), lowest + NEAREST + 1)
    x, y = x[near], y[:, near]
    if len(x) < FEWEST["parabola"]:
        return np.full((len(y), 2), np.nan)
    centre = x.mean()
    bend, slope, level = np.polyfit(x - centre, y.T, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        place = -slope / (2 * bend) + centre
        least = level - slope**2 / (4 * bend)
    inside = (bend > 0) & (place > x[0]) & (place < x[-1])
    return np.where(inside[:, None], np.stack([place, least], axis=1), np.nan)


def _lowest_of_spline(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from scipy.interpolate import Akima1DInterpolator  # dear to import, and only needed here

    grid = np.linspace(x[0], x[-1], GRID)
    curve = Akima1DInterpolator(x, y.T)(grid).T
    place = np.argmin(curve, axis=1)
    inside = (place > 0) & (place < GRID - 1)
    at = np.clip(place, 1, GRID - 2)
    rows = np.arange(len(y))
    before, here, after = (curve[rows, at + shift] for shift in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = 0.5 * (before - after) / (before - 2 * here + after)
    shift = np.where(np.isfinite(shift), np.clip(shift, -1, 1), 0.0)
    lowest = here - 0.25 * (before - after) * shift
    found = np.stack([grid[at] + shift * (grid[1] - grid[0]), lowest], axis=1)
    return np.where(inside[:, None], found, np.nan)


def roughness(log_size: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
    """How far inner points lie off the cubic through their four neighbours, scaled to one point's
    noise: (max(k - 4, 0),). A smooth curve well sampled has next to none."""
    count = len(log_size)
    result = []
    for i in range(2, count - 2):
        near = [i - 2, i - 1, i + 1, i + 2]
        x = log_size[near] - log_size[i]
        weights = [np.prod([x[m] / (x[m] - x[k]) for m in range(4) if m != k]) for k in range(4)]
        off = log_loss[i] - float(np.dot(weights, log_loss[near]))
        result.append(off / np.sqrt(1.0 + float(np.dot(weights, weights))))
    return np.array(result)
