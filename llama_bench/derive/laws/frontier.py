"""The best loss of each compute: a power of compute above a floor."""

from __future__ import annotations

from typing import Literal

from llama_bench.derive.fit_settings import FitSettings
from llama_bench.derive.laws.law import power_law


class FrontierSettings(FitSettings):
    """points: what the frontier goes through. `minima`: the interpolated minimum of each budget;
    `runs`: the best run of each budget, or those within `within_percent` of it; `auto`: minima
    where the table has four budgets or more of four sizes or more, else runs."""

    points: Literal["auto", "minima", "runs"] = "auto"


@power_law(needs=("flops",), exponents={"g": (0.0, 1.5)},
           paper="Hoffmann et al. 2022, arXiv 2203.15556, equation 4 put into equation 2")
def frontier(x):
    """L*(C) = E + K / C^g

    C: compute in FLOPs; L*: the loss of the best split of it, nats per token. From Hoffmann's law
    with the best split follows g = alpha beta / (alpha + beta).
    """
    return {"K": {"g": -x["flops"]}}
