"""`hold_out:` and `fit:` what is foretold, and which laws are fitted."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import field_validator

from llama_bench.fields import Base, Name, Real, unknown


class Need(NamedTuple):
    """The fewest runs, sizes, budgets and lengths of unique text that a law can be fitted to;
    `scores`: it is of task scores, so that there must be something to evaluate."""

    runs: int
    sizes: int
    budgets: int
    unique: int = 1
    flop_budgets: bool = False
    scores: bool = False


# derive/laws knows the formulas
LAW_NEEDS = {
    "chinchilla": Need(6, 3, 3),
    "kaplan": Need(5, 2, 2),
    "overtraining": Need(5, 2, 2),
    "frontier": Need(4, 2, 4),
    "envelope": Need(4, 3, 2),
    "isoflop": Need(9, 3, 3, flop_budgets=True),
    "data_constrained": Need(9, 3, 2, unique=3),
    "direct": Need(8, 3, 2, scores=True),
    "two_step": Need(8, 3, 2, scores=True),
}


class HoldOut(Base):
    """Trainings whose loss is forecast, in writing, before they may start; left empty, none."""

    models: list[Name] = []
    """These, at every budget."""
    budgets: list[Real] = []
    """Every model, at these."""


class Fit(Base):
    """Laws to fit; left out, those that the study has enough runs for."""

    laws: list[str] | None = None
    """By name: chinchilla, kaplan, overtraining, frontier, envelope, isoflop, data_constrained,
    direct, two_step."""

    @field_validator("laws")
    @classmethod
    def _known(cls, values):
        for law in values or []:
            if law not in LAW_NEEDS:
                raise ValueError(unknown(law, list(LAW_NEEDS), "law"))
        return values
