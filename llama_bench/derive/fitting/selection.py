"""Which runs a law is fitted to: all, or those near the best of their budget.

The same law fits better where it is meant to hold. Runs far from the best of their budget (a tiny
model trained for very long, a large one hardly at all) are where a sum of two powers is most wrong.
"""

from __future__ import annotations

import numpy as np

from llama_bench.derive.fitting.runs_table import Table

# Runs count as of the same budget when their compute differs by less than this.
SAME_BUDGET = 1.1


def extent(table: Table) -> np.ndarray:
    """How large each run is, (n,): its budget, its compute, or what else the table has of size."""
    return next(table[name] for name in ("budget", "flops", "params", "tokens") if name in table)


def excess(table: Table, target: str = "loss") -> np.ndarray:
    """How far each row's loss lies above the best reached with no more compute, (n,), 0.02 = 2 %.

    "No more" allows for a tenth, so that runs of one budget compare with one another.
    """
    flops = extent(table)
    order = np.argsort(flops, kind="stable")
    best = np.minimum.accumulate(table[target][order])
    last = np.searchsorted(flops[order], flops * SAME_BUDGET, side="right") - 1
    return table[target] / best[last] - 1.0


def near_best(table: Table, within_percent: float | None, target: str = "loss") -> Table:
    """The rows within that many percent of the best of their budget; None keeps all."""
    if within_percent is None:
        return table
    mask = excess(table, target) <= within_percent / 100.0
    return table.keep(mask, f"more than {within_percent:g} % above the best of its budget")
