"""What pre-training is worth in labelled examples, and the law of it.

A fine-tuned model's test loss is looked up on the curve of the same size trained from zero on the
same examples: D_E, the examples which that takes to get there. D_T = D_E - D_F is what pre-training
transferred (Hernandez et al. 2021, arXiv 2102.01293, figure 1). Of each point `state` says:

- used: D_T is above zero, and the law is fitted to it;
- beyond: the loss is below all that training from zero reached, so D_T is only known to be above
  `most_examples` less its own;
- nothing: training from zero is as good on the same examples;
- no curve: at this size fewer than two amounts of data were trained on from zero.

Only models that share a tokenizer are compared, so only those that the study trained; of each the
law takes the largest budget. Loss and data are means over seeds, of logarithms.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from llama_bench.derive.fitting import fitted_parameters, inverse
from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.fitting.regression import regress
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.laws.transfer import transfer
from llama_bench.derive.tables import study_tables

USED, BEYOND, NOTHING, NO_CURVE = "used", "beyond", "nothing", "no curve"
LEAST = {"points": 6, "sizes": 2, "fractions": 2}
SETTINGS = FitSettings(law="transfer", loss_function="squared", bootstrap="residuals", level=0.95)

Row = dict[str, Any]


def rows(finetunings: list[Row]) -> Iterator[study_tables.Row]:
    """Rows of `transfer` and `transfer_laws` from those of `finetunings`."""
    known = [row for row in finetunings if _usable(row)]
    zero = [row for row in known if row["from_zero"]]
    curves = _grouped(zero, ("finetune", "model", "fraction"))
    # what was not compared with training from zero has no law, and no reason to name
    compared = {row["finetune"] for row in zero}
    tuned = [row for row in known if not row["from_zero"] and row["finetune"] in compared]
    places = ("finetune", "method", "model", "budget", "fraction")
    points = [_point(mine, curves) for mine in _grouped(tuned, places).values()]
    points.sort(key=lambda p: [p[n] for n in ("finetune", "method", "params", "model", "fraction")])
    for point in points:
        yield "transfer", study_tables.row("transfer", **point)
    for (finetune, method), mine in _grouped(points, ("finetune", "method")).items():
        for values in _law(_largest_budget(mine)):
            named = {"finetune": finetune, "method": method}
            yield "transfer_laws", study_tables.row("transfer_laws", **named, **values)


def _usable(row: Row) -> bool:
    known = None not in (row["test_loss"], row["examples"], row["parameters_without_embeddings"])
    return known and row["test_loss"] > 0 and row["origin"] == "trained"


def _grouped(found: list[Row], names: tuple[str, ...]) -> dict[tuple, list[Row]]:
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in found:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def _mean(mine: list[Row], name: str) -> float:
    return math.exp(math.fsum(math.log(row[name]) for row in mine) / len(mine))


def _point(mine: list[Row], curves: dict[tuple, list[Row]]) -> Row:
    row = mine[0]
    curve = {
        fraction: (_mean(runs, "examples"), _mean(runs, "test_loss"))
        for (finetune, model, fraction), runs in curves.items()
        if (finetune, model) == (row["finetune"], row["model"])
    }
    point = {name: row[name] for name in ("finetune", "method", "model", "budget", "fraction")}
    point |= {"params": row["parameters_without_embeddings"], "runs": len(mine)}
    point |= {"examples": _mean(mine, "examples"), "loss": _mean(mine, "test_loss")}
    point["from_zero_loss"] = curve.get(row["fraction"], (None, None))[1]
    if len(curve) < 2:
        return point | {"state": NO_CURVE}
    data, losses = np.array(sorted(curve.values())).T
    needed = inverse.data_needed(data, losses, point["loss"])
    point["most_examples"] = data.max()
    if needed == inverse.BEYOND:
        return point | {"state": BEYOND}
    if needed <= point["examples"]:
        return point | {"state": NOTHING, "effective_examples": needed or None}
    found = {"effective_examples": needed, "transferred": needed - point["examples"]}
    return point | {"state": USED, **found}


def _largest_budget(points: list[Row]) -> list[Row]:
    most: dict[str, int] = {}
    for point in points:
        most[point["model"]] = max(most.get(point["model"], 0), point["budget"] or 0)
    return [point for point in points if (point["budget"] or 0) == most[point["model"]]]


def _law(points: list[Row]) -> Iterator[Row]:
    """One row per parameter; one without a parameter where nothing was fitted."""
    used = [point for point in points if point["state"] == USED]
    counts = {
        "points": len(used),
        "sizes": len({point["params"] for point in used}),
        "fractions": len({point["fraction"] for point in used}),
    }
    if any(counts[name] < least for name, least in LEAST.items()):
        yield counts | {"status": "too-few-points", "why": _too_few(points, counts)}
        return
    columns = {name: np.array([p[name] for p in used]) for name in ("examples", "transferred")}
    columns["params"] = np.array([float(point["params"]) for point in used])
    fit = regress(transfer, Table(columns, np.arange(1, len(used) + 1)), SETTINGS)
    found = fitted_parameters.parameters(fit, SETTINGS.level, None)
    for name, entry in found.items():
        values = {key: entry[key] for key in ("value", "standard_error", "low", "high")}
        values |= {"parameter": name, "level": SETTINGS.level, "why": fit.why or None}
        yield counts | {"status": fit.status} | values


def _too_few(points: list[Row], counts: dict[str, int]) -> str:
    states = [point["state"] for point in points]
    lost = {
        BEYOND: "beyond all that training from zero reached",
        NOTHING: "no better than from zero on the same examples",
        NO_CURVE: "without a curve from zero",
    }
    why = [f"{states.count(state)} {said}" for state, said in lost.items() if state in states]
    of = f", of sizes: {counts['sizes']}, of amounts of data: {counts['fractions']}"
    return (
        f"{counts['points']} of {len(points)} points can be used{of if counts['points'] else ''}; "
        f"it takes {LEAST['points']} of {LEAST['sizes']} sizes and {LEAST['fractions']} amounts"
        + (f" ({', '.join(why)})" if why else "")
    )
