"""What makes a law: the columns it needs, its parameters with bounds, and its surface.

A law of power terms is one function, from the logarithms of the columns to its terms, and the
bounds of its exponents:

    @power_law(needs=("params",), exponents={"alpha": (0.0, 3.0)}, paper="...")
    def example(x):
        '''L(N) = E + A / N^alpha ...'''
        return {"A": {"alpha": -x["params"]}}

Everything else (gradients, starts, centring, the way back to A in natural units) follows from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from llama_bench.derive.laws.power import AT_ZERO, VANISHED, PowerSurface
from llama_bench.derive.laws.surface import Surface

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Law:
    """A law that is fitted by one regression.

    needs: columns besides the target. parameter_names: what is fitted. target: the column it
    explains. link: "log" where h is the logarithm of the target, else "identity".
    bind(columns, reference) gives the Surface on those rows; `reference` (column -> typical value)
    is taken from the fitted runs and kept, so that predictions are made in the same coordinates.
    natural(theta, reference) gives name -> (B,), the parameters in the units of the formula.
    derived(natural) gives more of the same kind. spread: maps the first column to what the law
    scales by its standard deviation.
    """

    name: str
    needs: tuple[str, ...]
    parameter_names: tuple[str, ...]
    bind: Callable[[Columns, Mapping[str, float]], Surface]
    natural: Callable[[np.ndarray, Mapping[str, float]], dict[str, np.ndarray]]
    formula: str
    paper: str
    target: str = "loss"
    link: str = "log"
    derived: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = field(
        default=lambda natural: {}
    )
    spread: Callable[[np.ndarray], np.ndarray] | None = None

    def reference(self, columns: Columns) -> dict[str, float]:
        """The geometric mean of every column, of the target too; `spread` where the law scales."""
        reference = {
            name: float(np.exp(np.mean(np.log(columns[name]))))
            for name in (*self.needs, self.target)
            if np.all(columns[name] > 0)
        }
        if self.spread is not None:
            reference["spread"] = float(np.std(self.spread(columns[self.needs[0]]))) or 1.0
        return reference

    def onto_link(self, target: np.ndarray) -> np.ndarray:
        return np.log(target) if self.link == "log" else target

    def off_link(self, h: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.exp(h) if self.link == "log" else h


class _Straight(Surface):
    """A surface of log f made into one of f itself, for residuals that are not relative."""

    def __init__(self, surface: Surface):
        self.inner, self.rows, self.names = surface, surface.rows, surface.names
        self.lower, self.upper, self.generic = surface.lower, surface.upper, surface.generic

    def value(self, theta: np.ndarray) -> np.ndarray:
        return np.exp(self.inner.value(theta))

    def without_vanished(self, theta: np.ndarray) -> np.ndarray:
        return self.inner.without_vanished(theta)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        return self.value(theta)[:, :, None] * self.inner.jacobian(theta)

    def starts(self, count: int, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return self.inner.starts(count, np.log(target), weight)


def straight(law: Law) -> Law:
    """The same law with residuals in the target's own units instead of its logarithm."""
    if law.link != "log":
        return law
    return replace(
        law,
        link="identity",
        bind=lambda columns, reference: _Straight(law.bind(columns, reference)),
    )


def power_law(
    needs: tuple[str, ...],
    exponents: Mapping[str, tuple[float, float]],
    paper: str,
    floor: str | None = "E",
    target: str = "loss",
    name: str | None = None,
    **more,
) -> Callable[[Callable[[Columns], dict]], Law]:
    """Make a Law of a function that names the power terms. Its docstring opens with the formula."""

    def make(function: Callable[[Columns], dict]) -> Law:
        def logs(columns: Columns, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
            return {c: np.log(columns[c]) - np.log(reference[c]) for c in needs}

        def bind(columns: Columns, reference: Mapping[str, float]) -> PowerSurface:
            terms = function(logs(columns, reference))
            rows = len(columns[needs[0]])
            return PowerSurface(terms, exponents, floor, reference[target], rows)

        def natural(theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
            return _natural(function, exponents, floor, needs, theta, reference, reference[target])

        formula = inspect.getdoc(function).splitlines()[0]
        own = name or function.__name__
        coefficients = function(dict.fromkeys(needs, np.zeros(1)))
        names = (*([floor] if floor else []), *coefficients, *exponents)
        return Law(own, needs, names, bind, natural, formula, paper, target=target, **more)

    return make


def _natural(function, exponents, floor, needs, theta, reference, scale) -> dict[str, np.ndarray]:
    """Undo the centring: log c = log c' - sum_j exponent_j * column_j(reference)."""
    terms = function({c: np.log(reference[c]) for c in needs})
    names = ([floor] if floor else []) + list(terms) + list(exponents)
    at = {name: theta[:, place] for place, name in enumerate(names)}
    zero = np.log(scale) + VANISHED + AT_ZERO
    natural = dict(at)
    for coefficient, powers in terms.items():
        shift = sum(at[exponent] * column for exponent, column in powers.items())
        with np.errstate(over="ignore", under="ignore"):
            value = np.exp(at[coefficient] - shift)
        natural[coefficient] = np.where(at[coefficient] <= zero, 0.0, value)
    return natural
