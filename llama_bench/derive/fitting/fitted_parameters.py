"""A regression as the fit file has it: parameters with intervals, points, residuals.

An interval's end that reaches infinity is null and named in `unbounded`; a parameter that the data
do not determine has no value. So no number in the file looks like a fit that was not made.
"""

from __future__ import annotations

import numpy as np

from llama_bench.derive.fitting.fresh_studies import covered
from llama_bench.derive.fitting.regression import Regression, bounds_hit, undetermined

NUDGE = 1e-4


def parameters(fit: Regression, level: float, fresh: np.ndarray | None) -> dict[str, dict]:
    """Each parameter in natural units: value, standard_error, low, high, covered and the rest.

    fresh: the draws of fresh studies (fresh_studies.py), or None.
    """
    if fit.theta is None:
        return {name: missing() for name in fit.law.parameter_names}
    best, drawn = _natural(fit, fit.theta[None]), _natural(fit, fit.draws)
    pushed = _pushed_to_infinity(fit, drawn)
    blind = _undetermined(fit)
    entries = {}
    for name in best:
        values = pushed.get(name, drawn[name])
        made = entry(best[name][0], values, level, fit.stretch, name in fit.at_bound)
        entries[name] = missing() if name in blind else made
    return _tested(entries, fit, level, fresh, lambda natural: natural)


def derived(fit: Regression, level: float, fresh: np.ndarray | None) -> dict[str, dict]:
    """The same for what follows from the parameters (exponents of the allocation, constants)."""
    if fit.theta is None:
        return {}
    blind, held = _undetermined(fit, fit.law.derived), bool(fit.at_bound)
    with np.errstate(all="ignore"):
        best = fit.law.derived(_natural(fit, fit.theta[None]))
        drawn = fit.law.derived(_natural(fit, fit.draws))
    entries = {}
    for name in best:
        made = entry(best[name][0], drawn[name], level, fit.stretch, held)
        entries[name] = missing() if name in blind else made
    return _tested(entries, fit, level, fresh, fit.law.derived)


def _tested(entries: dict[str, dict], fit: Regression, level, fresh, onward) -> dict[str, dict]:
    """The entries with `covered`; onward: from natural parameters to what the entries are of."""
    if fresh is None:
        return entries
    with np.errstate(all="ignore"):
        found = onward(_natural(fit, fresh.reshape(-1, fresh.shape[2])))
    return {
        name: made
        | {"covered": covered(made["value"], found[name].reshape(fresh.shape[:2]), level)}
        for name, made in entries.items()
    }


def points(fit: Regression) -> list[dict]:
    """One entry per row fitted: row, its columns, fitted value and residual on the fit's scale."""
    columns = [*fit.law.needs, fit.law.target]
    entries = []
    for i, row in enumerate(fit.table.rows):
        entry = {"row": int(row)} | {c: float(fit.table[c][i]) for c in columns}
        if fit.residuals is not None:
            observed = fit.law.onto_link(fit.table[fit.law.target][i])
            entry["fitted"] = float(fit.law.off_link(observed - fit.residuals[i]))
            entry["residual"] = float(fit.residuals[i])
        entries.append(entry)
    return entries


def missing() -> dict:
    """The entry of a parameter that is not determined at all."""
    return {
        "value": None,
        "standard_error": None,
        "low": None,
        "high": None,
        "covered": None,
        "unbounded": ["low", "high"],
        "at_bound": False,
    }


def entry(value, drawn, level, stretch=1.0, at_bound=False) -> dict:
    """A value with the interval that its draws (B,) span; infinite draws open the interval.

    A NaN is a draw that does not determine the value, which may then lie anywhere: it counts as
    below the low end and as above the high one, so that more of them than a tail open both.
    """
    lost = np.isnan(drawn)
    if lost.all() or not np.isfinite(value):
        return missing()
    tail, rest = (1 - level) / 2, (1 + level) / 2
    low = np.quantile(np.where(lost, -np.inf, drawn), tail, method="inverted_cdf")
    high = np.quantile(np.where(lost, np.inf, drawn), rest, method="inverted_cdf")
    finite = drawn[np.isfinite(drawn)]
    open_ended = [end for end, bound in (("low", low), ("high", high)) if not np.isfinite(bound)]
    error = None if open_ended or at_bound else float(np.std(finite) / stretch)
    return {
        "value": float(value),
        "standard_error": error if error is None or np.isfinite(error) else None,
        "low": float(low) if np.isfinite(low) else None,
        "high": float(high) if np.isfinite(high) else None,
        "covered": None,
        "unbounded": open_ended,
        "at_bound": at_bound,
    }


def _natural(fit: Regression, theta: np.ndarray) -> dict[str, np.ndarray]:
    return fit.law.natural(theta, fit.reference)


def _pushed_to_infinity(fit: Regression, drawn: dict) -> dict[str, np.ndarray]:
    """Draws that ended at an upper bound stand for infinity, in every parameter that moves on."""
    _, high = bounds_hit(fit.surface, fit.draws)
    result: dict[str, np.ndarray] = {}
    for place in np.flatnonzero(high.any(axis=0)):
        further = fit.draws.copy()
        further[:, place] += 1.0
        for name, values in _natural(fit, further).items():
            with np.errstate(invalid="ignore"):
                moved = values - drawn[name]
            endless = np.where(moved > 0, np.inf, -np.inf)
            shown = result.get(name, drawn[name])
            result[name] = np.where(high[:, place] & (moved != 0), endless, shown)
    return result


def _undetermined(fit: Regression, onward=lambda natural: natural) -> set[str]:
    """Names whose value changes along a direction that the data say nothing about.

    At generic parameters for what no data of this design could tell; and, where parameters ended
    at a bound, at the optimum too (an exponent of 0 makes its term a second floor).
    """
    cases = [(fit.surface.generic, fit.null)]
    if fit.at_bound:
        free = ~np.isin(fit.law.parameter_names, fit.at_bound)
        cases.append((fit.theta, undetermined(fit.surface, fit.theta, free)))
    blind = set()
    with np.errstate(all="ignore"):
        for theta, null in cases:
            here = onward(_natural(fit, theta[None]))
            for direction in null.T:
                moved = onward(_natural(fit, (theta + NUDGE * direction)[None]))
                for name, value in here.items():
                    if not abs(moved[name][0] - value[0]) <= 1e-3 * NUDGE * abs(value[0]):
                        blind.add(name)
    return blind
