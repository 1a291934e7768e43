"""The judge: what a law is worth is how well it foretold runs larger than those it had seen.

Rolling origin: fit on the smaller compute, predict all of the larger, move on. Always the largest
runs are hidden, never random rows: several rows of one run are not independent, and predicting
between points that one has is not forecasting. What the hidden runs show is used twice: to choose
a law and a selection of runs, and to widen its intervals until they hold (conformal residuals).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.fitting.methods import status_of
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.fitting.selection import excess, extent, near_best
from llama_bench.derive.laws.law import Law

Reduce = Callable[[Table, FitSettings], Table]

CUTS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEVELS = (0.5, 0.8, 0.9, 0.95)
FOLD_DRAWS, FOLD_STARTS = 160, 24
# An interval is widened where so few hidden runs inside it would be this improbable by chance.
CHANCE = 0.1
ROWS_OF_A_FOLD = 8


def same(table: Table, settings: FitSettings) -> Table:
    """A law of all rows."""
    return table


def folds(table: Table, cuts: Sequence[float] = CUTS) -> list[tuple[np.ndarray, np.ndarray]]:
    """(fitted, hidden) row masks, the hidden ones always of larger compute than the fitted.

    Rows of one budget stay together; cuts are shares of the rows, in order of compute.
    """
    flops = extent(table)
    ordered = np.sort(flops)
    edges = []
    for cut in cuts:
        edge = ordered[min(max(round(cut * len(ordered)), 1), len(ordered)) - 1]
        if edge < ordered[-1] and (not edges or edge > edges[-1]):
            edges.append(edge)
    return [(flops <= edge, flops > edge) for edge in edges]


def back_test(
    method, table: Table, settings: FitSettings, reduce: Reduce = same, levels=LEVELS
) -> dict:
    """How `method`, fitted to ever larger parts of `table`, predicted all larger runs.

    method: a Single or a Chain (methods.py). reduce(table, settings): the rows that the law is of,
    where these are not all; it is tested on those rows only. The parts are the same whatever the
    law, so that laws can be compared. Returns the `back_test` of a fit file, whose keys
    docs/laws.md explains. Percentages are of the target.
    """
    brief = settings.model_copy(
        update={
            "draws": min(settings.draws, FOLD_DRAWS),
            "starts": min(settings.starts, FOLD_STARTS),
        }
    )
    best = excess(table) <= 0 if "loss" in table else np.zeros(len(table), bool)
    meant = np.isin(table.rows, reduce(table, settings).rows)
    shown, hidden = [], []
    for fitted, ahead in folds(table):
        train = reduce(table.keep(fitted, "hidden"), brief)
        train = near_best(train, settings.within_percent, method.last.target)
        test = table.keep(ahead & meant, "not ahead")
        entry, found = _fold(method, train, test, best[ahead & meant], brief, levels)
        shown.append(entry)
        if found is not None:
            hidden.append(found)
    return {"folds": shown, **_verdict(hidden, levels)}


def _fold(method, train: Table, test: Table, best: np.ndarray, settings, levels):
    """What one fold shows, and (error in percent, scores, best) of its hidden rows, or None."""
    fits = method.fit(train, settings, brief=True) if len(train) and len(test) else []
    entry = {
        "rows_fitted": len(train),
        "rows_hidden": len(test),
        "largest_fitted": float(extent(train).max()) if len(train) else None,
        "status": status_of(fits)[0] if fits else "too-few-points",
        "mean_error_percent": None,
        "best_runs_error_percent": None,
    }
    kept = method.kept(fits) if fits else None
    if kept is None:
        return entry, None
    found = method.forecast(kept, test.columns, levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = 100 * (found.point / test[method.last.target] - 1)
    if not np.isfinite(error).all():
        return entry, None
    entry["mean_error_percent"] = float(np.mean(np.abs(error)))
    if best.any():
        entry["best_runs_error_percent"] = float(np.mean(np.abs(error[best])))
    return entry, (error, _scores(method.last, found, test), best)


def _scores(law: Law, found, test: Table) -> dict[float, np.ndarray]:
    """Per level, how many half-widths each hidden run lies from its point; 1 is an end."""
    off = law.onto_link(test[law.target]) - law.onto_link(found.point)
    result = {}
    for level, (low, high) in found.intervals.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.where(off > 0, law.onto_link(high), law.onto_link(low))
            reach = np.abs(ends - law.onto_link(found.point))
            # Rounding alone keeps an exact law from exact intervals.
            score = np.abs(off) / np.maximum(reach, 1e-9)
        result[level] = np.where(np.isinf(reach), 0.0, score)
    return result


def _verdict(hidden: list, levels) -> dict:
    if not hidden:
        return {
            "rows_hidden": 0,
            "mean_error_percent": None,
            "mean_bias_percent": None,
            "best_runs_error_percent": None,
            "levels": [],
        }
    error = np.concatenate([h[0] for h in hidden])
    best = np.concatenate([h[2] for h in hidden])
    rows = []
    for level in levels:
        scores = [h[1][level] for h in hidden]
        rows.append(
            {
                "level": level,
                "covered_as_drawn": float(np.mean(np.concatenate(scores) <= 1)),
                "widening": widening(scores, level),
                "covered": _held_out_cover(scores, level),
            }
        )
    return {
        "rows_hidden": len(error),
        "mean_error_percent": float(np.mean(np.abs(error))),
        "mean_bias_percent": float(np.mean(error)),
        "best_runs_error_percent": float(np.mean(np.abs(error[best]))) if best.any() else None,
        "levels": rows,
    }


def widening(scores: list[np.ndarray], level: float) -> float:
    """The factor, 1 or more, by which half-widths grow so that the hidden runs lie inside.

    scores: one array a fold. The conformal quantile of all of them, where fewer lie inside than
    chance explains; the intervals of a law that holds stay as they are. The runs of a fold share
    the error of its fit, so a fold counts as ROWS_OF_A_FOLD independent ones at most.
    """
    if not scores:
        return 1.0
    everything = np.concatenate(scores)
    count = min(len(everything), ROWS_OF_A_FOLD * len(scores))
    inside = round(float(np.mean(everything <= 1)) * count)
    if _binomial_tail(inside, count, level) > CHANCE:
        return 1.0
    rank = min(math.ceil((len(everything) + 1) * level), len(everything))
    return max(1.0, float(np.sort(everything)[rank - 1]))


def _held_out_cover(scores: list[np.ndarray], level: float) -> float:
    """The share inside, each fold widened by what the other folds say: the honest one."""
    inside = []
    for place, mine in enumerate(scores):
        others = [s for i, s in enumerate(scores) if i != place]
        factor = widening(others, level)
        inside.append(mine <= factor)
    return float(np.mean(np.concatenate(inside)))


def _binomial_tail(inside: int, count: int, level: float) -> float:
    """P(at most `inside` of `count`), each inside with probability `level`."""
    logs = [
        math.lgamma(count + 1)
        - math.lgamma(k + 1)
        - math.lgamma(count - k + 1)
        + k * math.log(level)
        + (count - k) * math.log1p(-level)
        for k in range(inside + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))
