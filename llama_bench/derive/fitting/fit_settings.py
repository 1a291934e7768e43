"""What a fit may be told. Every default suits a table that one knows nothing about."""

from __future__ import annotations

import json
import math
from typing import Literal

from pydantic import Field, ValidationError

from llama_bench.fields import Base, Count, Real, UserError, readable


class FitSettings(Base):
    """The settings of a fit.

    loss_function: Huber's loss with threshold `delta` (summed, on the law's own scale: log loss,
    or accuracy), or the square. residual: of the logarithm of the loss, or of the loss itself.
    starts: sets of exponents that a search begins at. draws: bootstrap draws. level: of the
    parameters' intervals. bootstrap: `residuals` resampled about the fitted law, or `cases`, whole
    rows; `auto` takes cases where there are ten rows or more to a parameter. within_percent: fit
    only the runs within that many percent of the best loss of their budget. missing: what an empty
    cell is, an error or a row to leave out. back_test: whether to test the law on the largest runs.
    """

    law: str
    loss_function: Literal["huber", "squared"] = "huber"
    residual: Literal["log", "linear"] = "log"
    delta: Real = Field(1e-3, gt=0)
    starts: Count = Field(200, ge=1, le=1_000_000)
    draws: Count = Field(1000, ge=20, le=100_000)
    level: Real = Field(0.9, gt=0, lt=1)
    bootstrap: Literal["auto", "residuals", "cases"] = "auto"
    within_percent: Real | None = Field(None, gt=0)
    missing: Literal["error", "leave-out"] = "error"
    back_test: bool = True
    seed: Count = 0

    @property
    def threshold(self) -> float:
        return self.delta if self.loss_function == "huber" else math.inf


def parse(spec: str) -> dict:
    """The settings in `spec`, a law's name or JSON text, as a plain dict. Raises UserError."""
    text = spec.strip()
    if not text.startswith("{"):
        return {"law": text}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"fit: the spec is no JSON: {error}") from None
    if "law" not in content:
        raise UserError('fit: law: is missing; add it, for example {"law": "chinchilla"}')
    return content


def settled(content: dict, kind: type[FitSettings]) -> FitSettings:
    """`content` checked against the settings of one law. Raises UserError naming the key."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise readable(error, "fit") from None
