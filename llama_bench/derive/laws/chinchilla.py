"""Loss against parameters and tokens, one power of each (Hoffmann et al. 2022)."""

from __future__ import annotations

import numpy as np

from llama_bench.derive.laws.law import power_law

# An exponent that the search left this near to its bound of 0 is 0.
FLAT = 3e-6


def _allocation(natural):
    """N*(C) = G (C/6)^a and D*(C) = (C/6)^b / G, which minimise L where 6 N D = C (equation 4).

    NaN where a term vanished, its coefficient or its exponent being 0: the loss then falls with
    one of the two alone (or neither), and no split is best. Its limit, a = 1 where alpha = 0, would
    put all compute into the size, which has no effect.
    """
    alpha, beta = natural["alpha"], natural["beta"]
    two_terms = (natural["A"] > 0) & (natural["B"] > 0) & (alpha > FLAT) & (beta > FLAT)
    total = np.where(two_terms, alpha + beta, np.nan)
    return {"a": beta / total, "b": alpha / total}


@power_law(
    needs=("params", "tokens"),
    exponents={"alpha": (0.0, 3.0), "beta": (0.0, 3.0)},
    paper="Hoffmann et al. 2022, arXiv 2203.15556, equation 2, approach 3",
    derived=_allocation,
)
def chinchilla(x):
    """L(N, D) = E + A / N^alpha + B / D^beta

    N: parameters, D: tokens, L: loss in nats per token. E: the entropy of text, what no model
    gets below. The optimal split of a compute budget C = 6 N D goes as N* ~ C^a with
    a = beta / (alpha + beta).
    """
    return {"A": {"alpha": -x["params"]}, "B": {"beta": -x["tokens"]}}
