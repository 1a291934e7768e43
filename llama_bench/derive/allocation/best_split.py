"""How to split a compute budget: the size with the least loss, and how little exactness matters.

The best split of C = 6 N D under a law of N and D: N*(C), D*(C), tokens per parameter, each with
an interval; and the flatness, the range of sizes that costs less than 1 % of loss.
"""

from __future__ import annotations

import numpy as np

from llama_bench.derive.fitting.fitted_parameters import entry, missing
from llama_bench.derive.fitting.fresh_studies import covered
from llama_bench.derive.fitting.regression import Regression

DECADES = 5.0
GRID, COARSER = 1201, 4
DRAWS = 400
FLAT = 0.01
LEVEL = 1e-12  # a curve that moves no more than rounding does has no lowest point
AHEAD = (1.0, 10.0, 100.0)


def content(fit: Regression, level: float, fresh: np.ndarray | None) -> list[dict] | None:
    """One entry for each budget: the largest one fitted, ten and a hundred times that.

    None where the law is not one of size and tokens, or the runs do not determine it. fresh: the
    draws of fresh studies (fresh_studies.py), or None.
    """
    if fit.theta is None or fit.null.shape[1] or not {"params", "tokens"} <= set(fit.law.needs):
        return None
    if not set(fit.law.needs) <= {"params", "tokens", "flops", "unique_tokens"}:
        return None
    largest = float(fit.table["flops"].max())
    return [at_budget(fit, largest * factor, level, fresh) for factor in AHEAD]


def at_budget(fit: Regression, flops: float, level: float, fresh) -> dict:
    """The best split of `flops` and its flatness. A size at an end of the grid (five decades to
    either side of one token per parameter) is no optimum: its entries have no numbers."""
    grid = 0.5 * np.log(flops / 6.0) + np.log(10) * np.linspace(-DECADES, DECADES, GRID)
    h = _curve(fit, np.vstack([fit.theta[None], fit.draws[:DRAWS]]), grid, flops)
    size, total = _lowest(grid, h), np.log(flops / 6.0)
    found = None
    if fresh is not None:
        curves = _curve(fit, fresh.reshape(-1, fresh.shape[2]), grid[::COARSER], flops)
        found = _lowest(grid[::COARSER], curves).reshape(fresh.shape[:2])
    loss = h[0].min() if fit.law.link == "identity" else np.exp(h[0].min())
    there = bool(np.isfinite(size[0]))
    return {
        "flops": flops,
        "params": _entry(fit, level, size, found),
        "tokens": _entry(fit, level, total - size, None if found is None else total - found),
        "tokens_per_param": _entry(
            fit, level, total - 2 * size, None if found is None else total - 2 * found
        ),
        "loss": float(loss) if there else None,
        "flat": _flatness(grid, h[0], fit.law.link, there),
    }


def _entry(fit: Regression, level: float, logs: np.ndarray, fresh: np.ndarray | None) -> dict:
    """From logarithms: the fit's own and then its draws' (1 + B,); those of fresh studies."""
    with np.errstate(over="ignore"):
        values = np.exp(logs)
    if not np.isfinite(logs[0]):
        return missing()
    made = entry(values[0], values[1:], level, fit.stretch)
    if made["low"] is not None and made["low"] <= 0:
        # A size of zero is no size: the interval has no lower end.
        made = made | {"low": None, "unbounded": sorted({*made["unbounded"], "low"})}
    if fresh is None or made["value"] is None:
        return made
    with np.errstate(over="ignore"):
        return made | {"covered": covered(made["value"], np.exp(fresh), level)}


def _curve(fit: Regression, theta: np.ndarray, grid: np.ndarray, flops: float) -> np.ndarray:
    sizes = np.exp(grid)
    columns = {"params": sizes, "tokens": flops / 6.0 / sizes, "flops": np.full_like(sizes, flops)}
    columns["unique_tokens"] = columns["tokens"]
    with np.errstate(all="ignore"):
        surface = fit.law.bind(columns, fit.reference)
        h = surface.value(surface.without_vanished(theta))
    return np.where(np.isfinite(h), h, np.inf)


def _lowest(grid: np.ndarray, h: np.ndarray) -> np.ndarray:
    """log N* of each curve (B, G), refined by a parabola; -inf or inf at an end of the grid, NaN
    where all sizes are alike."""
    place = np.argmin(h, axis=1)
    at = np.clip(place, 1, len(grid) - 2)
    rows = np.arange(len(h))
    before, here, after = (h[rows, at + shift] for shift in (-1, 0, 1))
    with np.errstate(all="ignore"):
        shift = 0.5 * (before - after) / (before - 2 * here + after)
        moves = h.max(axis=1) - h.min(axis=1) > LEVEL
    shift = np.where(np.isfinite(shift), np.clip(shift, -1, 1), 0.0)
    best = grid[at] + shift * (grid[1] - grid[0])
    best = np.where(place == 0, -np.inf, np.where(place == len(grid) - 1, np.inf, best))
    return np.where(moves, best, np.nan)


def _flatness(grid: np.ndarray, h: np.ndarray, link: str, there: bool) -> dict:
    """The sizes between which the loss is within FLAT of its least; null where the grid ends, and
    where there is no best size to compare with."""
    loss = np.exp(h) if link == "log" else h
    inside = np.flatnonzero(loss <= (1 + FLAT) * loss.min())
    low, high = inside[0], inside[-1]
    return {
        "within_percent": 100 * FLAT,
        "params_low": float(np.exp(grid[low])) if there and low > 0 else None,
        "params_high": float(np.exp(grid[high])) if there and high < GRID - 1 else None,
    }
