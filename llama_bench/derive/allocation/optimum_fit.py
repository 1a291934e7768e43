"""Approaches 1 and 2: how the best size and the best tokens grow with compute.

The best run of each budget is found first (optima.py); then log N* and log D* are straight lines in
log C, and L* is a frontier. The intervals come from how far the optima lie off those lines.
"""

from __future__ import annotations

import numpy as np

from llama_bench.derive.allocation.optima import Optima
from llama_bench.derive.fitting import fitted_parameters, fresh_studies, intervals
from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.fitting.methods import Single, status_of
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.judging import judge
from llama_bench.derive.laws.frontier import frontier
from llama_bench.derive.laws.optimum import best_params, best_tokens

LAWS = {"params": best_params, "tokens": best_tokens, "loss": frontier}


def content(found: Optima, settings: FitSettings) -> dict:
    """The parts of a fit file that say what was found: status, parameters, minima, forecasts.

    `parameters` has a and N_1, b and D_1, and E, K and g of the loss where there are budgets
    enough; `status` is of the first four, `loss_status` of the others.
    """
    names = [name for name in LAWS if name in found.table or not len(found.table)]
    fits = {
        name: Single(LAWS[name]).fit(_unweighted(found.table, name), settings)[0] for name in names
    }
    status, why = status_of([fits["params"], fits["tokens"]])
    parameters, predict, tests = {}, {}, {}
    for name, fit in fits.items():
        fresh = fresh_studies.draws(fit, settings)
        parameters |= fitted_parameters.parameters(fit, settings.level, fresh)
        predict[name] = intervals.kept(fit)
        if settings.back_test and fit.theta is not None:
            tests[name] = judge.back_test(
                Single(LAWS[name]), _unweighted(found.table, name), settings
            )
    loss = fits.get("loss")
    return {
        "formula": "N*(C) = N_1 C^a, D*(C) = D_1 C^b",
        "paper": best_params.paper,
        "status": status,
        "why": why or _edges(found),
        "loss_status": loss.status if loss else None,
        "parameters": parameters,
        "derived": {},
        "objective": fits["params"].objective,
        "minima": found.minima,
        "points_used": fitted_parameters.points(fits["params"]),
        "points_left_out": found.table.left_out,
        "back_test": tests or None,
        "predict": predict if fits["params"].theta is not None else None,
    }


def columns(fit: dict, table: Table, levels, covered) -> dict[str, np.ndarray]:
    """What `predict` adds: point (the loss) and optimal_params, optimal_tokens, each with ends.

    covered(test, level): the back-test's covered share and widening, as predict.py reads them.
    """
    result = {}
    for name, law in LAWS.items():
        title = "point" if name == "loss" else f"optimal_{name}"
        prefix = "" if name == "loss" else f"optimal_{name}_"
        kept = fit["predict"].get(name)
        test = (fit.get("back_test") or {}).get(name)
        shares, widening = covered(test)
        made = intervals.forecast(law, kept, table.columns, levels, widening) if kept else None
        nothing = np.full(len(table), np.nan)
        result[title] = made.point if made else nothing
        for level in levels:
            low, high = made.intervals[level] if made else (nothing, nothing)
            percent = f"{100 * level:.3g}"
            result[f"{prefix}low_{percent}"], result[f"{prefix}high_{percent}"] = low, high
            result[f"{prefix}covered_{percent}"] = shares.get(level, np.nan)
    return result


def _unweighted(table: Table, name: str) -> Table:
    """Weights are of log N*; the loss at a minimum is flat in N and known alike everywhere."""
    if name != "loss":
        return table
    columns = {c: values for c, values in table.columns.items() if c != "weight"}
    return Table(columns, table.rows, table.left_out)


def _edges(found: Optima) -> str:
    lost = sum(1 for entry in found.minima if entry["params"] is None)
    return f"{lost} of {len(found.minima)} budgets have no minimum among their runs" if lost else ""
