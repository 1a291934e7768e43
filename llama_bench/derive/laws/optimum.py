"""The best size and the best number of tokens for a compute budget: powers of the budget."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.laws.law import power_law
from llama_bench.fields import Real

RANGE = (-1.0, 3.0)


class IsoflopSettings(FitSettings):
    """method: how a budget's minimum is found. noise: standard deviation of log loss between
    equal runs; null takes it from the runs. Few points, each of many runs: least squares."""

    method: Literal["akima", "parabola"] = "akima"
    noise: Real | None = Field(None, ge=0)
    loss_function: Literal["huber", "squared"] = "squared"


class EnvelopeSettings(FitSettings):
    """rows: whether the table holds `runs`, whose best are found, or `optima` found already (then
    no loss is needed). Few points, each the best of many: least squares."""

    rows: Literal["runs", "optima"] = "runs"
    loss_function: Literal["huber", "squared"] = "squared"


@power_law(
    needs=("flops",),
    exponents={"a": RANGE},
    floor=None,
    target="params",
    paper="Hoffmann et al. 2022, arXiv 2203.15556, section 3",
)
def best_params(x):
    """N*(C) = N_1 C^a

    C: compute in FLOPs, N*: parameters. N_1 is N* at one FLOP and has no meaning of its own.
    """
    return {"N_1": {"a": x["flops"]}}


@power_law(
    needs=("flops",),
    exponents={"b": RANGE},
    floor=None,
    target="tokens",
    paper="Hoffmann et al. 2022, arXiv 2203.15556, section 3",
)
def best_tokens(x):
    """D*(C) = D_1 C^b

    C: compute in FLOPs, D*: tokens. a + b = 1 where C = 6 N D.
    """
    return {"D_1": {"b": x["flops"]}}
