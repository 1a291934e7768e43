"""Sums of power laws: a floor and terms that are each a product of powers of the columns.

    f = E + sum_k c_k * prod_j x_j^(exponent_kj)          h = log f

Most laws of the field have this shape; a law of it is one function that names the terms. In
theta = [E, log c_1 ..., exponents] every term is exp(linear in theta), so that the gradient and
the Hessian of h are sums of a few products, and a whole batch of thetas costs a few matrix
products. Columns are logarithms centred on the runs: c_k is the term's value at their centre,
which decouples it from its exponent (A and alpha of Hoffmann's law are correlated at 0.99
otherwise, and A spans decades).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llama_bench.derive.fitting import starts
from llama_bench.derive.laws.surface import Surface

# A term this many e-folds below the losses does nothing: the coefficient has reached "zero".
VANISHED = -16.0
# How near to it the search may leave one that is zero.
AT_ZERO = 0.1


class PowerSurface(Surface):
    """A sum of power terms bound to n rows.

    terms: coefficient name -> {exponent name -> (n,) column that multiplies the exponent in the
        log of the term}; a name may stand in several terms (tied exponents).
    bounds: exponent name -> (low, high).
    floor: name of the constant E, or None where the law has none.
    scale: a typical loss; bounds of E and of the coefficients are relative to it.
    """

    def __init__(
        self,
        terms: Mapping[str, Mapping[str, np.ndarray]],
        bounds: Mapping[str, tuple[float, float]],
        floor: str | None = "E",
        scale: float = 1.0,
        rows: int = 0,
    ):
        exponents = list(bounds)
        self.floor = floor is not None
        self.names = ([floor] if floor else []) + list(terms) + exponents
        self.rows = rows
        self.places: list[list[int]] = []
        self.columns: list[np.ndarray] = []
        for name, powers in terms.items():
            places = [self.names.index(name)] + [self.names.index(p) for p in powers]
            self.places.append(places)
            self.columns.append(np.stack([np.ones(rows), *powers.values()]))
        # Products of columns, term by term: what turns the Hessian into matrix products.
        self._outer = [[_outer(left, right) for right in self.columns] for left in self.columns]
        size, count = len(self.names), len(terms)
        self.lower = np.full(size, -np.inf)
        self.upper = np.full(size, np.inf)
        start = int(self.floor)
        if self.floor:
            self.lower[0], self.upper[0] = 0.0, 2.0 * scale
        self.lower[start : start + count] = np.log(scale) + VANISHED
        self.upper[start : start + count] = np.log(scale) + 6.0
        for name, (low, high) in bounds.items():
            place = self.names.index(name)
            self.lower[place], self.upper[place] = low, high
        self.coefficients = slice(start, start + count)
        self.generic = np.full(size, 0.3 * scale)
        self.generic[self.coefficients] = np.log(0.3 * scale)
        free = slice(start + count, None)
        self.generic[free] = self.lower[free] + 0.15 * (self.upper[free] - self.lower[free])

    def parts(self, theta: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """theta (B, P) -> f (B, n) and each term (B, n)."""
        with np.errstate(over="ignore"):
            terms = [
                np.exp(theta[:, places] @ columns)
                for places, columns in zip(self.places, self.columns, strict=True)
            ]
            total = sum(terms[1:], terms[0])
            if self.floor:
                total = total + theta[:, :1]
        return total, terms

    def value(self, theta: np.ndarray) -> np.ndarray:
        """h = log f, theta (B, P) -> (B, n)."""
        return np.log(self.parts(theta)[0])

    def without_vanished(self, theta: np.ndarray) -> np.ndarray:
        """A coefficient at "zero" is none at all: with a steep exponent what the bound leaves of
        it would come back far from the runs."""
        bare, zero = theta.copy(), self.lower[self.coefficients] + AT_ZERO
        bare[:, self.coefficients][bare[:, self.coefficients] <= zero] = -np.inf
        return bare

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """dh / dtheta, (B, n, P)."""
        total, terms = self.parts(theta)
        result = np.zeros((*total.shape, len(self.names)))
        if self.floor:
            result[:, :, 0] = 1.0 / total
        for places, columns, term in zip(self.places, self.columns, terms, strict=True):
            share = term / total
            for place, column in zip(places, columns, strict=True):
                result[:, :, place] += share * column
        return result

    def newton(self, theta, pull):
        """h, and what minimising sum rho(y - h) needs at theta (B, P).

        `pull(h)` gives (cost, first, second), each (B, n): rho and its derivatives in h, weighted.
        Returns cost (B,), gradient (B, P), Hessian (B, P, P). With s_k = term_k / f and z_k its
        columns: grad h = sum s_k z_k and hess h = sum s_k z_k z_k' - grad h grad h'.
        """
        total, terms = self.parts(theta)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            cost, first, second = pull(np.log(total))
            inverse = 1.0 / total
        batch, size = theta.shape
        gradient = np.zeros((batch, size))
        hessian = np.zeros((batch, size, size))
        bend = second - first
        shares = [term * inverse for term in terms]
        if self.floor:
            gradient[:, 0] = np.einsum("bn,bn->b", first, inverse)
            bent_inverse = bend * inverse
            hessian[:, 0, 0] = np.einsum("bn,bn->b", bent_inverse, inverse)
        for k, (places, share) in enumerate(zip(self.places, shares, strict=True)):
            pulled = first * share
            gradient[:, places] += pulled @ self.columns[k].T
            self._add(hessian, places, places, pulled @ self._outer[k][k])
            bent = bend * share
            if self.floor:
                cross = (bent * inverse) @ self.columns[k].T
                hessian[:, 0, places] += cross
                hessian[:, places, 0] += cross
            for m in range(k + 1):
                block = (bent * shares[m]) @ self._outer[k][m]
                self._add(hessian, places, self.places[m], block)
                if m < k:
                    swapped = block.reshape(batch, len(places), -1).transpose(0, 2, 1)
                    self._add(hessian, self.places[m], places, swapped.reshape(batch, -1))
        return cost.sum(axis=1), gradient, hessian

    def starts(self, count: int, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Exponents spread over their bounds, floor and coefficients projected: (count, P)."""
        theta = np.zeros((count, len(self.names)))
        free = slice(self.coefficients.stop, None)
        theta[:, free] = starts.spread(count, self.lower[free], self.upper[free])
        _, terms = self.parts(theta)
        columns = np.stack([np.ones_like(terms[0])] * self.floor + terms, axis=2)
        level = np.exp(target)
        found = starts.project(columns / level[None, :, None], np.ones(self.rows), weight)
        split = int(self.floor)
        theta[:, :split] = found[:, :split]
        low = self.lower[self.coefficients]
        theta[:, self.coefficients] = np.log(np.maximum(found[:, split:], np.exp(low + 12.0)))
        return theta

    @staticmethod
    def _add(hessian, left, right, block):
        columns = iter(range(block.shape[1]))
        for i in left:
            for j in right:
                hessian[:, i, j] += block[:, next(columns)]


def _outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(p, n) and (q, n) -> (n, p q), every product of a column of one with one of the other."""
    return (left[:, None, :] * right[None, :, :]).reshape(-1, left.shape[1]).T.copy()
