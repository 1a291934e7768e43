"""What `forecast` is asked: which trainings are foretold from which."""

from __future__ import annotations

from typing import ClassVar

from llama_bench.fields import Base, Count, Real
from llama_bench.specs.identity import Spec


class ForecastPoint(Base):
    """One training that is held out: where on the law it lies, and of scores its evaluation."""

    run: str
    model: str
    params: Count
    tokens: Count
    flops: Real
    evaluation: str | None = None


class ForecastSpec(Spec):
    """The losses of `points`, foretold from the trainings `runs` by the law that the back-test
    chooses. It is derived, but written once, before the runs that it is about.

    Where `tasks` names some, it is their scores that are foretold, from the `evaluations` of those
    trainings. Losses and scores are two forecasts: a suite that is added renames no forecast of a
    loss."""

    verb: ClassVar[str] = "forecast"
    law: str = "auto"
    runs: tuple[str, ...]
    points: tuple[ForecastPoint, ...]
    tasks: tuple[str, ...] | None = None
    evaluations: tuple[str, ...] | None = None

    @property
    def slug(self) -> str:
        models = "-".join(dict.fromkeys(point.model for point in self.points))[:60]
        return f"{models}-scores" if self.tasks else models

    @property
    def records(self) -> list[str]:
        """What it rests on: the records of trainings and of their evaluations."""
        asked = {"train": self.runs, "evaluate": self.evaluations or ()}
        return [f"results/runs/{verb}/{run}/record.json" for verb in asked for run in asked[verb]]
