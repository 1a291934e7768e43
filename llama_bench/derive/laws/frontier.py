"""The best loss of each compute: a power of compute above a floor."""

from __future__ import annotations

from typing import Literal

from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.laws.law import power_law


class FrontierSettings(FitSettings):
    """points: what the frontier goes through. `best`: the runs that no run of less or equal
    compute beats, or all within `within_percent` of them; `minima`: the interpolated minimum of
    each budget, by Akima's spline. By default least squares: there are few points, and each is
    the best of many."""

    points: Literal["best", "minima"] = "best"
    loss_function: Literal["huber", "squared"] = "squared"


@power_law(
    needs=("flops",),
    exponents={"g": (0.0, 1.5)},
    paper="Hoffmann et al. 2022, arXiv 2203.15556, equation 4 put into equation 2",
)
def frontier(x):
    """L*(C) = E + K / C^g

    C: compute in FLOPs; L*: the loss of the best split of it, nats per token. From Hoffmann's law
    with the best split follows g = alpha beta / (alpha + beta).
    """
    return {"K": {"g": -x["flops"]}}
