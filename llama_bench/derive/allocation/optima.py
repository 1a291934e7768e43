"""The best run of each budget: the minima of isoFLOP curves, or the lower envelope of all runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.fitting.selection import SAME_BUDGET, excess
from llama_bench.derive.laws import isoflop

REDRAWS = 400
LEAST_NOISE = 1e-4
FOUND = ("budget", "params", "tokens", "loss")


@dataclass(frozen=True)
class Optima:
    """table: one row per budget that has an optimum (flops, params, tokens, loss, weight, rows of
    the source it stands for). minima: what was found in every budget, as the fit file tells it."""

    table: Table
    minima: list[dict]


def budgets(table: Table) -> list[np.ndarray]:
    """Row places of each budget, smallest first: equal `budget`, else compute within a tenth."""
    values = table["budget"] if "budget" in table else table["flops"]
    tolerance = 1.0 + 1e-9 if "budget" in table else SAME_BUDGET
    groups: list[list[int]] = []
    first = -np.inf
    for row in np.argsort(values, kind="stable"):
        if not groups or values[row] > first * tolerance:
            groups.append([])
            first = values[row]
        groups[-1].append(int(row))
    return [np.array(group) for group in groups]


def minima(table: Table, method: str, noise: float | None, seed: int) -> Optima:
    """The minimum over size of each budget that has one inside its runs.

    noise: standard deviation of log loss from run to run; None takes it from the runs (repeats of
    one size, else how rough the curves are). A minimum's weight is 1 / variance of its log N* over
    re-draws with that noise. Tokens are those that the budget's runs spent at N*.
    """
    groups = budgets(table)
    curves = [_curve(table, group) for group in groups]
    spread = noise if noise is not None else _noise(table, groups, curves)
    random = np.random.default_rng(seed)
    told, rows = [], []
    for group, (size, loss) in zip(groups, curves, strict=True):
        entry = _entry(float(np.exp(np.mean(np.log(table["flops"][group])))), len(group))
        told.append(entry)
        if len(size) < isoflop.FEWEST[method]:
            entry["why"] = f"{len(size)} sizes; {method} takes {isoflop.FEWEST[method]}"
            continue
        drawn = loss + random.normal(0.0, spread, size=(REDRAWS, len(size)))
        best = isoflop.minimum(size, np.vstack([loss, drawn]), method)
        again = best[1:][np.isfinite(best[1:, 0])]
        if not np.isfinite(best[0, 0]) or len(again) < REDRAWS / 2:
            entry["why"] = "the lowest loss is at the smallest or largest size"
            continue
        # The median over re-draws: the minimum of one curve jumps where two places are as low.
        entry |= _at(table, group, np.median(again, axis=0))
        entry["log_params_error"] = error = _error(again[:, 0], size)
        best_run = table.rows[group[np.argmin(table["loss"][group])]]
        rows.append([best_run, *(entry[name] for name in FOUND), error**-2])
    return Optima(_as_table(rows, table.left_out), told)


def _error(again: np.ndarray, size: np.ndarray) -> float:
    """Standard error of log N*: the spread over re-draws, never below a third of the step between
    sizes (what the spline cannot see), and larger where many re-draws had no minimum."""
    step = float(np.median(np.diff(size)))
    return max(float(np.std(again)), step / 3) * REDRAWS / len(again)


def _curve(table: Table, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log sizes, rising, and the mean log loss at each."""
    size, place = np.unique(np.log(table["params"][group]), return_inverse=True)
    total = np.bincount(place.ravel(), weights=np.log(table["loss"][group]))
    return size, total / np.bincount(place.ravel())


def _noise(table, groups, curves) -> float:
    repeats = []
    for group, (size, loss) in zip(groups, curves, strict=True):
        place = np.searchsorted(size, np.log(table["params"][group]))
        if len(group) > len(size):
            off = np.log(table["loss"][group]) - loss[place]
            repeats.append((np.sum(off**2), len(group) - len(size)))
    if repeats:
        return max(
            LEAST_NOISE, float(np.sqrt(sum(s for s, _ in repeats) / sum(n for _, n in repeats)))
        )
    rough = np.concatenate([isoflop.roughness(*curve) for curve in curves])
    # The median: where a curve bends sharply its cubic is off for no fault of the run's.
    return max(LEAST_NOISE, float(1.4826 * np.median(np.abs(rough)))) if len(rough) else 1e-3


def _at(table: Table, group: np.ndarray, best: np.ndarray) -> dict:
    size = np.log(table["params"][group])
    order = np.argsort(size, kind="stable")
    tokens = np.interp(best[0], size[order], np.log(table["tokens"][group])[order])
    return {
        "params": float(np.exp(best[0])),
        "tokens": float(np.exp(tokens)),
        "loss": float(np.exp(best[1])),
    }


def envelope(table: Table, all_are_optima: bool = False) -> Optima:
    """The runs that no run of less or equal compute beats, one a budget at most.

    all_are_optima: take every row as the best of its budget, as in a table of published optima.
    """
    rows, told = [], []
    above = excess(table) if not all_are_optima else np.zeros(len(table))
    for group in budgets(table) if not all_are_optima else np.arange(len(table))[:, None]:
        best = group[np.argmin(above[group])]
        entry = _entry(float(table["flops"][best]), len(group))
        told.append(entry)
        if above[best] > 0:
            entry["why"] = "a run of less compute does better"
            continue
        entry |= {
            name: float(table[name][best]) for name in ("params", "tokens", "loss") if name in table
        }
        rows.append([table.rows[best], *(entry[name] for name in FOUND), 1.0])
    return Optima(_as_table(rows, table.left_out), told)


def _entry(budget: float, runs: int) -> dict:
    """What is told of one budget, before anything is known of it."""
    return {
        "budget": budget,
        "runs": runs,
        **dict.fromkeys(("params", "tokens", "loss")),
        "why": "",
    }


def _as_table(rows: list[list], left_out: list[dict]) -> Table:
    """Each row keeps the number of the best run of its budget."""
    names = ("row", "flops", "params", "tokens", "loss", "weight")
    values = np.array(rows, dtype=float).reshape(-1, len(names)).T
    columns = dict(zip(names, values, strict=True))
    numbers = columns.pop("row").astype(int)
    if np.isnan(columns["loss"]).any():
        del columns["loss"]
    return Table(columns, numbers, left_out)
