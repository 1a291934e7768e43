"""Where a search begins: exponents spread evenly over their bounds, coefficients projected out.

A law is linear in its floor and coefficients once its exponents are known, so only the exponents
are searched (variable projection, Golub and Pereyra 1973): for each set of them the best
non-negative coefficients come from one small least-squares problem in relative error.
"""

from __future__ import annotations

import itertools

import numpy as np


def spread(count: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """`count` points evenly spread in a box, (count, d): an additive recurrence, no randomness.

    The recurrence's steps are powers of the root of x^(d+1) = x + 1 (M. Roberts, 2018), which
    leaves smaller holes than random points do, and the first n points are the same for any count.
    """
    dimensions = len(lower)
    root = 2.0
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    shares = (0.5 + np.outer(np.arange(1, count + 1), steps)) % 1.0
    return lower + shares * (upper - lower)


def project(columns: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Non-negative least squares for a batch of columns (B, n, K): coefficients (B, K).

    target, weight: (n,). Minimises sum_i weight_i (target_i - sum_k c_k columns_ik)^2, c >= 0,
    by trying every set of columns that stay (2^K - 1 of them; a law has four coefficients at most).
    """
    batch, _, size = columns.shape
    weighted = columns * weight[None, :, None]
    normal = np.einsum("bnk,bnl->bkl", weighted, columns, optimize=True)
    right = np.einsum("bnk,n->bk", weighted, target, optimize=True)
    best = np.zeros((batch, size))
    lowest = np.zeros(batch)
    for count in range(1, size + 1):
        for kept in itertools.combinations(range(size), count):
            kept = list(kept)
            block = normal[:, kept][:, :, kept]
            ridge = 1e-12 * np.trace(block, axis1=1, axis2=2)[:, None, None] * np.eye(count)
            found = np.linalg.solve(block + ridge + 1e-300, right[:, kept, None])[:, :, 0]
            gain = -np.einsum("bk,bk->b", found, right[:, kept])
            better = (found >= 0).all(axis=1) & (gain < lowest)
            lowest = np.where(better, gain, lowest)
            best[better] = 0.0
            best[np.ix_(np.flatnonzero(better), kept)] = found[better]
    return best
