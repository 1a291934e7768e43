"""Loss when tokens are repeated and models outgrow their data (Muennighoff et al. 2023).

Repeated tokens, and parameters beyond what the unique tokens deserve, are worth less the more of
them there are: their worth decays exponentially, with constants R_D* (epochs) and R_N* (multiples
of the best size). Above bounds of 10^4 they mean "does not decay".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from llama_bench.derive.fitting import starts
from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.laws.law import Law
from llama_bench.derive.laws.surface import Surface
from llama_bench.fields import Base, Real

R_BOUNDS = (1e-2, 1e4)
NEEDS = ("params", "tokens", "unique_tokens")
PAPER = "Muennighoff et al. 2023, arXiv 2305.16264, equations 5 and 7"
FORMULA = (
    "L(N, D, U) = E + A / N'^alpha + B / D'^beta, "
    "D' = U + U R_D (1 - exp(-(D/U - 1) / R_D)), "
    "N' = U_N + U_N R_N (1 - exp(-(N/U_N - 1) / R_N))"
)


class BaseLaw(Base):
    """Hoffmann's law for single-epoch runs, held fixed: E + A / N^alpha + B / D^beta."""

    E: Real = Field(ge=0)
    A: Real = Field(gt=0)
    B: Real = Field(gt=0)
    alpha: Real = Field(gt=0)
    beta: Real = Field(gt=0)


PUBLISHED = BaseLaw(  # Muennighoff et al., section 3.1 and code: C4, alpha = beta
    E=float(np.exp(0.6254804)),
    A=float(np.exp(6.255414)),
    B=float(np.exp(7.3049974)),
    alpha=0.3526596,
    beta=0.3526596,
)


class DataConstrainedSettings(FitSettings):
    """base: the law of single-epoch runs. `fitted` with the rest, on the table itself;
    `published`, the constants of Muennighoff et al. for C4; or five constants of your own.
    tied: whether alpha = beta where they are fitted, as in the paper."""

    base: Literal["fitted", "published"] | BaseLaw = "fitted"
    tied: bool = False


class _Repeated(Surface):
    """theta = [log R_D, log R_N] and, unless they are fixed, [E, log A', log B', alpha, beta],

    A' and B' being the terms' values at the centre of the runs. h = log L.
    """

    def __init__(self, columns, reference, base: BaseLaw | None, tied: bool):
        self.x, self.z, self.u = (np.log(columns[c] / reference[c]) for c in NEEDS)
        # Unique tokens and tokens are compared, so they are centred alike.
        self.u = np.log(np.minimum(columns["unique_tokens"], columns["tokens"]))
        self.u = self.u - np.log(reference["tokens"])
        self.centre = np.log(reference["params"]), np.log(reference["tokens"])
        self.base, self.tied, self.rows = base, tied, len(self.x)
        scale = reference["loss"]
        level = np.log(scale)
        self.names = ["R_D", "R_N"]
        low, high = [np.log(R_BOUNDS[0])] * 2, [np.log(R_BOUNDS[1])] * 2
        typical = [0.0, 0.0]
        if base is None:
            self.names += ["E", "A", "B", "alpha"] + ([] if tied else ["beta"])
            low += [0.0, level - 16, level - 16, 0.02] + ([] if tied else [0.02])
            high += [2 * scale, level + 6, level + 6, 2.0] + ([] if tied else [2.0])
            typical += [0.3 * scale, np.log(0.3 * scale), np.log(0.3 * scale), 0.3]
            typical += [] if tied else [0.35]
        self.lower, self.upper = np.array(low), np.array(high)
        self.generic = np.array(typical)

    def unpack(self, theta):
        """log R_D, log R_N, E, log A', log B', alpha, beta: each (B, 1)."""
        column = [theta[:, i : i + 1] for i in range(theta.shape[1])]
        if self.base is None:
            return (*column, column[-1]) if self.tied else tuple(column)
        base = self.base
        fixed = (
            base.E,
            np.log(base.A) - base.alpha * self.centre[0],
            np.log(base.B) - base.beta * self.centre[1],
            base.alpha,
            base.beta,
        )
        return (*column, *(np.full_like(column[0], value) for value in fixed))

    def _parts(self, theta):
        r_d, r_n, floor, a, b, alpha, beta = self.unpack(theta)
        # log of the best size for u unique tokens: alpha A N^-alpha = beta B D^-beta (centred).
        best = (np.log(alpha) + a - np.log(beta) - b + beta * self.u) / alpha
        fit = np.minimum(self.x, best)
        n, n_slope, n_more = _worth(self.x - fit, r_n)
        d, d_slope, _ = _worth(self.z - self.u, r_d)
        n_term = np.exp(a - alpha * (fit + n))
        d_term = np.exp(b - beta * (self.u + d))
        return floor, alpha, beta, best, fit, (n, n_slope, n_more), (d, d_slope), n_term, d_term

    def value(self, theta: np.ndarray) -> np.ndarray:
        floor, *_, n_term, d_term = self._parts(theta)
        return np.log(floor + n_term + d_term)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        floor, alpha, beta, best, fit, (n, n_slope, n_more), (d, d_slope), n_term, d_term = (
            self._parts(theta)
        )
        total = floor + n_term + d_term
        columns = [-beta * d_slope * d_term, -alpha * n_slope * n_term]
        if self.base is None:
            # N' moves with `best` where the model outgrew its data: d(fit + n) = (1 - n_more).
            through = np.where(best < self.x, -alpha * (1.0 - n_more) * n_term, 0.0)
            by_alpha = -(fit + n) * n_term + through * (1.0 / alpha - best) / alpha
            by_beta = -(self.u + d) * d_term + through * (self.u - 1.0 / beta) / alpha
            columns += [np.ones_like(total), n_term + through / alpha, d_term - through / alpha]
            columns += [by_alpha + by_beta] if self.tied else [by_alpha, by_beta]
        return np.stack(columns, axis=2) / total[:, :, None]

    def starts(self, count: int, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        theta = np.zeros((count, len(self.names)))
        free = (
            [0, 1]
            + ([5] if self.base is None else [])
            + ([6] if self.base is None and not self.tied else [])
        )
        low, high = self.lower[free].copy(), self.upper[free].copy()
        low[2:], high[2:] = 0.1, 0.8
        theta[:, free] = starts.spread(count, low, high)
        if self.base is None:
            theta[:, 2:5] = self.generic[2:5]
            _, _, _, _, _, _, _, n_term, d_term = self._parts(theta)
            columns = np.stack([np.ones_like(n_term), n_term, d_term], axis=2)
            found = starts.project(
                columns / np.exp(target)[None, :, None], np.ones(self.rows), weight
            )
            theta[:, 2] = found[:, 0]
            theta[:, 3:5] += np.log(np.maximum(found[:, 1:], 1e-3))
        return theta


def _worth(excess, log_r):
    """log of (1 + R (1 - exp(-r / R))), r = exp(excess) - 1; its slope in log R and in excess."""
    r, size = np.expm1(np.clip(excess, 0.0, 100.0)), np.exp(log_r)
    decayed = np.exp(-r / size)
    value = 1.0 - size * np.expm1(-r / size)
    slope = (size * (1.0 - decayed) - r * decayed) / value
    return np.log(value), slope, decayed * (1.0 + r) / value


def _law(base: BaseLaw | None, tied: bool) -> Law:
    def bind(columns: Mapping[str, np.ndarray], reference: Mapping[str, float]) -> Surface:
        return _Repeated(columns, reference, base, tied)

    def natural(theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
        result = {"R_D": np.exp(theta[:, 0]), "R_N": np.exp(theta[:, 1])}
        if base is None:
            alpha, beta = theta[:, 5], theta[:, -1]
            with np.errstate(over="ignore"):
                result |= {
                    "E": theta[:, 2],
                    "A": np.exp(theta[:, 3] + alpha * np.log(reference["params"])),
                    "B": np.exp(theta[:, 4] + beta * np.log(reference["tokens"])),
                    "alpha": alpha,
                }
            result |= {} if tied else {"beta": beta}
        return result

    names = ("R_D", "R_N")
    if base is None:
        names += ("E", "A", "B", "alpha") + (() if tied else ("beta",))
    return Law("data_constrained", NEEDS, names, bind, natural, FORMULA, PAPER)


def data_constrained(settings: DataConstrainedSettings) -> Law:
    """D' and N' above: U unique tokens, U_N the best size for them by the base law."""
    base = (
        {"fitted": None, "published": PUBLISHED}.get(settings.base)
        if isinstance(settings.base, str)
        else settings.base
    )
    return _law(base, settings.tied)
