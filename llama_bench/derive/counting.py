"""The same fit under every way of counting parameters and FLOPs that the table has.

Whether N counts embeddings, and C the attention, moves an exponent by more than its interval; a
table that has `params_without_embeddings` or `flops_with_attention` beside `params` and `flops`
gets one more fit for each, and the shift it causes.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from llama_bench.derive import runs_table
from llama_bench.derive.selection import near_best
from llama_bench.fields import UserError

OTHER = re.compile(r"(?:n_)?(params|flops)_\w+")


def content(frame: pd.DataFrame, family, settings, source: str) -> dict:
    """{"counting": [...]}: one entry per other count, the parameters' values and their shifts.

    A count that cannot be used (missing in some rows, text) is named with the reason.
    """
    needs = set(family.columns(settings))
    entries = []
    base = None
    for column in frame.columns:
        match = OTHER.fullmatch(str(column))
        if match is None or match[1] not in needs | {"flops"} or not needs & {"params", "flops"}:
            continue
        if base is None:
            base = _values(frame, family, settings, source)
        entries.append(
            {"column": column, "instead_of": match[1]}
            | _entry(frame, column, match[1], family, settings, source, base)
        )
    return {"counting": entries}


def _entry(frame, column, name, family, settings, source, base) -> dict:
    swapped = frame.drop(columns=[name], errors="ignore").rename(columns={column: name})
    if name == "params" and "flops" in swapped:
        swapped = swapped.drop(columns=["flops"])
    try:
        values = _values(swapped, family, settings, source)
    except UserError as error:
        return {"status": "ill-posed", "why": str(error), "values": {}, "shifts": {}}
    status = values.pop("status")
    shifts = {
        n: v - base[n] for n, v in values.items() if v is not None and base.get(n) is not None
    }
    return {"status": status, "why": "", "values": values, "shifts": shifts}


def _values(frame, family, settings, source) -> dict:
    brief = settings.model_copy(update={"draws": 20, "back_test": False})
    method = family.method(brief)
    table = runs_table.checked(frame, family.columns(brief), brief.missing, source)
    table = near_best(family.reduce(table, brief), brief.within_percent, method.last.target)
    fit = method.fit(table, brief)[0]
    if fit.theta is None:
        return {"status": fit.status}
    natural = fit.law.natural(fit.theta[None], fit.reference)
    with np.errstate(all="ignore"):
        natural = natural | fit.law.derived(natural)
    return {"status": fit.status} | {name: float(value[0]) for name, value in natural.items()}
