"""A surface of any shape, from its value and its gradient: the Hessian comes by differences.

Sums of power laws have their own exact Hessian (power.py). Other laws give h and dh/dtheta; the
part of the Hessian that comes from the bend of h is the difference of gradients, which costs one
more gradient per parameter and is exact enough for a Newton step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

STEP = 1e-6


class Surface(ABC):
    """A law bound to n rows: h(theta), for a batch of thetas at once.

    names: the P parameters of theta. lower, upper: (P,) bounds. rows: n. generic: (P,)
    parameters at which every part of the law is at work. h is compared with the logarithm of the
    target, or with the target itself, as the law's `link` says.
    """

    names: list[str]
    lower: np.ndarray
    upper: np.ndarray
    generic: np.ndarray
    rows: int

    @abstractmethod
    def value(self, theta: np.ndarray) -> np.ndarray:
        """theta (B, P) -> h (B, n)."""

    @abstractmethod
    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """theta (B, P) -> dh / dtheta (B, n, P)."""

    @abstractmethod
    def starts(self, count: int, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Where to begin a search for `target` (n,), on the scale of h: (count, P)."""

    def without_vanished(self, theta: np.ndarray) -> np.ndarray:
        """theta (B, P), from which `value` leaves out every term that vanished."""
        return theta

    def newton(self, theta: np.ndarray, pull) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cost (B,), gradient (B, P) and Hessian (B, P, P) of sum rho(y - h).

        `pull(h)` gives rho and its first and second derivative in h, weighted, each (B, n).
        """
        cost, first, second = pull(self.value(theta))
        jacobian = self.jacobian(theta)
        gradient = np.einsum("bn,bnp->bp", first, jacobian)
        hessian = np.einsum("bn,bnp,bnq->bpq", second, jacobian, jacobian, optimize=True)
        bend = np.empty_like(hessian)
        for place in range(theta.shape[1]):
            moved = theta.copy()
            moved[:, place] += STEP
            ahead = np.einsum("bn,bnp->bp", first, self.jacobian(moved))
            bend[:, place] = (ahead - gradient) / STEP
        hessian += 0.5 * (bend + bend.transpose(0, 2, 1))
        return cost.sum(axis=1), gradient, hessian
