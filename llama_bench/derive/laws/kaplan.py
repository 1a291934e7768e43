"""Loss as powers that fall to zero: in parameters, in tokens, in both, in compute.

Kaplan et al. 2020 (arXiv 2001.08361), equations 1.1, 1.2, 1.5 and 1.3. N counts parameters without
embeddings there; the scales N_c, D_c, C_c are where the loss would be 1 nat and have no meaning
of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from llama_bench.derive.fitting import starts
from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.laws.law import Law, power_law
from llama_bench.derive.laws.surface import Surface

PAPER = "Kaplan et al. 2020, arXiv 2001.08361, equation "
RANGE = (0.0, 2.0)


class KaplanSettings(FitSettings):
    """form: which of the laws. N: L(N); D: L(D); ND: L(N, D); C: L(C)."""

    form: Literal["N", "D", "ND", "C"] = "ND"


def _scale(exponent: str, name: str):
    """(X_c / X)^alpha is A X^-alpha with A = X_c^alpha."""

    def derived(natural):
        with np.errstate(all="ignore"):
            return {name: natural["A"] ** (1.0 / natural[exponent])}

    return derived


@power_law(
    needs=("params",),
    exponents={"alpha_N": RANGE},
    floor=None,
    name="kaplan",
    paper=PAPER + "1.1",
    derived=_scale("alpha_N", "N_c"),
)
def of_params(x):
    """L(N) = (N_c / N)^alpha_N = A / N^alpha_N

    For models trained to convergence on data without end. N_c in parameters, L in nats per token.
    """
    return {"A": {"alpha_N": -x["params"]}}


@power_law(
    needs=("tokens",),
    exponents={"alpha_D": RANGE},
    floor=None,
    name="kaplan",
    paper=PAPER + "1.2",
    derived=_scale("alpha_D", "D_c"),
)
def of_tokens(x):
    """L(D) = (D_c / D)^alpha_D = A / D^alpha_D

    For large models stopped early. D_c in tokens, L in nats per token.
    """
    return {"A": {"alpha_D": -x["tokens"]}}


@power_law(
    needs=("flops",),
    exponents={"alpha_C": RANGE},
    floor=None,
    name="kaplan",
    paper=PAPER + "1.3",
    derived=_scale("alpha_C", "C_c"),
)
def of_compute(x):
    """L(C) = (C_c / C)^alpha_C = A / C^alpha_C

    For the best model of each compute. C_c in FLOPs, L in nats per token.
    """
    return {"A": {"alpha_C": -x["flops"]}}


class _Both(Surface):
    """h = alpha_D log(exp(u / alpha_D) + exp(v / alpha_D)), u and v linear in the parameters.

    u = a - alpha_N x and v = b - alpha_D z are the logarithms of the loss that the size alone and
    the tokens alone would allow (x, z: centred logarithms). theta = [a, b, alpha_N, alpha_D].
    """

    names = ["a", "b", "alpha_N", "alpha_D"]

    def __init__(self, params: np.ndarray, tokens: np.ndarray, scale: float):
        self.x, self.z, self.rows = params, tokens, len(params)
        level = np.log(scale)
        self.lower = np.array([level - 12.0, level - 12.0, 0.0, 1e-3])
        self.upper = np.array([level + 6.0, level + 6.0, *(2 * RANGE[1:])])
        self.generic = np.array([level - 0.1, level - 0.1, 0.1, 0.12])

    def _parts(self, theta):
        a, b, alpha_n, alpha_d = (theta[:, i : i + 1] for i in range(4))
        u, v = a - alpha_n * self.x, b - alpha_d * self.z
        h = alpha_d * np.logaddexp(u / alpha_d, v / alpha_d)
        return u, v, h, np.exp((u - h) / alpha_d), alpha_d

    def value(self, theta: np.ndarray) -> np.ndarray:
        return self._parts(theta)[2]

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        u, v, h, share, alpha_d = self._parts(theta)
        rest = 1.0 - share
        own = (h - share * u - rest * v) / alpha_d
        return np.stack([share, rest, -share * self.x, own - rest * self.z], axis=2)

    def starts(self, count: int, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        theta = np.full((count, 4), np.average(target, weights=weight) - 0.2)
        theta[:, 2:] = starts.spread(count, np.array([0.01, 0.01]), np.array([0.6, 0.6]))
        return theta


def _bind(columns: Mapping[str, np.ndarray], reference: Mapping[str, float]) -> Surface:
    logs = [np.log(columns[c]) - np.log(reference[c]) for c in ("params", "tokens")]
    return _Both(*logs, reference["loss"])


def _natural(theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
    a, b, alpha_n, alpha_d = theta.T
    with np.errstate(all="ignore"):
        return {
            "N_c": np.exp(a / alpha_n) * reference["params"],
            "D_c": np.exp(b / alpha_d) * reference["tokens"],
            "alpha_N": alpha_n,
            "alpha_D": alpha_d,
        }


of_both = Law(
    "kaplan",
    ("params", "tokens"),
    ("N_c", "D_c", "alpha_N", "alpha_D"),
    _bind,
    _natural,
    "L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D",
    PAPER + "1.5",
)


def kaplan(settings: KaplanSettings) -> Law:
    """The law of the form asked for."""
    return {"N": of_params, "D": of_tokens, "ND": of_both, "C": of_compute}[settings.form]
