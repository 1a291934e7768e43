"""Loss against compute and tokens per parameter, with tied exponents (Gadre et al. 2024)."""

from __future__ import annotations

from typing import Literal

from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.laws.law import power_law


class OvertrainingSettings(FitSettings):
    """By default least squares on the loss itself, as its authors fit it."""

    loss_function: Literal["huber", "squared"] = "squared"
    residual: Literal["log", "linear"] = "linear"


@power_law(
    needs=("params", "tokens", "flops"),
    exponents={"eta": (0.0, 1.5)},
    paper="Gadre et al. 2024, arXiv 2403.08540, equation 4",
)
def overtraining(x):
    """L(C, M) = E + (a M^eta + b M^-eta) / C^eta

    C: compute in FLOPs, M: tokens per parameter, L: nats per token. It is Hoffmann's law with both
    exponents equal to 2 eta: training on more tokens than the optimum moves the curve of loss
    against compute up and leaves its slope.
    """
    ratio = x["tokens"] - x["params"]
    return {"a": {"eta": ratio - x["flops"]}, "b": {"eta": -ratio - x["flops"]}}
