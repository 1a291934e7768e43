"""The learning rate of every step, and the peak that a sweep found best.

WSD: linear warm-up, constant, decay to zero (Hu et al. 2024, MiniCPM, arXiv 2404.06395; Haegele et
al. 2024, arXiv 2405.18392). Cosine: warm-up, then half a period down to a tenth of the peak over
the run's own budget (Hoffmann et al. 2022, arXiv 2203.15556, section 3 and appendix B).
"""

from __future__ import annotations

import math
from pathlib import Path

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.records import Refusal
from llama_bench.specs import TrainSpec

COSINE_FLOOR = 0.1


def rate(spec: TrainSpec, step: int, peak: float) -> float:
    """Learning rate of a step; the decay of WSD is 1 - x or 1 - sqrt(x), the second being Haegele
    et al.'s (2024, section 3): better than the straight line."""
    scale = min(1.0, (step + 1) / spec.warmup_steps) if spec.warmup_steps else 1.0
    if step < spec.trunk_steps:
        return peak * scale
    if spec.schedule == "cosine":
        x = (step - spec.trunk_steps + 1) / (spec.steps - spec.trunk_steps)
        return peak * (COSINE_FLOOR + (1 - COSINE_FLOOR) * (1 + math.cos(math.pi * x)) / 2)
    x = (step - spec.trunk_steps + 1) / (spec.steps - spec.trunk_steps + 1)
    return peak * scale * (1 - (x if spec.decay == "linear" else math.sqrt(x)))


def peak_rate(spec: TrainSpec, swept: list[Path]) -> tuple[float, dict | None]:
    """The spec's own peak rate, or that of the training in its sweep which ended lowest, and what
    the sweep found. At an edge of the rates tried, a better one may lie beyond it.

    Raises UserError where one of the sweep's records is not given, Refusal where none has a loss.
    """
    if spec.sweep is None:
        return spec.learning_rate, None
    given = {path.parent.name: path for path in swept}
    for name in spec.sweep:
        if name not in given:
            raise UserError(f"train spec: sweep: the record of {name} is not among the inputs")
    found = [records.read(given[name]) for name in spec.sweep]
    rates = [record.spec["learning_rate"] for record in found]
    losses = [record.result["loss"] if record.status == "ok" else None for record in found]
    tried = sorted(zip(rates, losses, strict=True), key=lambda pair: pair[0])
    rates, losses = [rate for rate, _ in tried], [loss for _, loss in tried]
    finished = [loss for loss in losses if loss is not None]
    if not finished:
        raise Refusal("skipped", "none of the trainings of its sweep has a loss")
    best = losses.index(min(finished))
    at_edge = best in (0, len(rates) - 1)
    return rates[best], {"rates": rates, "losses": losses, "at_edge": at_edge}
