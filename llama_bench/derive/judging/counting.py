"""The same fit under every way of counting parameters and FLOPs that the table has.

Whether N counts embeddings, and C the attention, moves an exponent by more than its interval; a
table that has `params_without_embeddings` or `flops_with_attention` beside `params` and `flops`
gets one more fit for each, and the shift it causes. A given `flops` stays as it is.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from llama_bench.derive.fitting import runs_table
from llama_bench.derive.fitting.methods import Single, status_of
from llama_bench.derive.fitting.selection import near_best
from llama_bench.derive.laws.optimum import best_params, best_tokens
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
    """status, and the value of every parameter; no more than the status where nothing is fitted."""
    brief = settings.model_copy(update={"draws": 20, "back_test": False})
    table = runs_table.checked(frame, family.columns(brief), brief.missing, source)
    if family.optima is not None:
        found = family.optima(table, brief).table
        fits = [Single(law).fit(found, brief)[0] for law in (best_params, best_tokens)]
    else:
        method = family.method(brief)
        rows = near_best(family.reduce(table, brief), brief.within_percent, method.last.target)
        fits = method.fit(rows, brief)
    values = {}
    for fit in fits:
        if fit.theta is not None:
            natural = fit.law.natural(fit.theta[None], fit.reference)
            with np.errstate(all="ignore"):
                values |= natural | fit.law.derived(natural)
    return {"status": status_of(fits)[0]} | {
        name: float(value[0]) for name, value in values.items()
    }
