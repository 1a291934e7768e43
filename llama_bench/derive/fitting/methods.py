"""What the judge tests: ways from a table of runs to forecasts of one of its columns.

Most laws are one regression. The two-step law is a chain of two: compute gives a task's loss, the
loss gives accuracy, and a draw of the first feeds a draw of the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama_bench.derive.fitting import intervals
from llama_bench.derive.fitting.intervals import Forecast
from llama_bench.derive.fitting.regression import Regression, regress
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.laws.law import Law


@dataclass(frozen=True)
class Single:
    """One regression."""

    law: Law

    @property
    def last(self) -> Law:
        """The law whose target is forecast."""
        return self.law

    @property
    def columns(self) -> list[str]:
        """What a table must hold to be fitted."""
        return [*self.law.needs, self.law.target]

    def fit(self, table: Table, settings, brief: bool = False) -> list[Regression]:
        return [regress(self.law, table, settings, brief)]

    def kept(self, fits: list[Regression]) -> dict | None:
        return intervals.kept(fits[0])

    def forecast(self, kept: dict, columns, levels, widening=None) -> Forecast:
        return intervals.forecast(self.law, kept, columns, levels, widening)


@dataclass(frozen=True)
class Chain:
    """Two regressions: the first one's target is the second one's only column."""

    first: Law
    second: Law

    @property
    def last(self) -> Law:
        return self.second

    @property
    def columns(self) -> list[str]:
        return [*self.first.needs, self.first.target, self.second.target]

    def fit(self, table: Table, settings, brief: bool = False) -> list[Regression]:
        other = settings.model_copy(update={"seed": settings.seed + 1})
        return [
            regress(self.first, table, settings, brief),
            regress(self.second, table, other, brief),
        ]

    def kept(self, fits: list[Regression]) -> dict | None:
        if any(fit.theta is None for fit in fits):
            return None
        return {"first": intervals.kept(fits[0]), "second": intervals.kept(fits[1])}

    def forecast(self, kept: dict, columns, levels, widening=None) -> Forecast:
        middle, draws = intervals.drawn(self.first, kept["first"], columns)
        blind = ~np.isfinite(middle)
        given = {self.first.target: self.first.off_link(np.where(blind, 0.0, middle))}
        point = intervals.drawn(self.second, kept["second"], given)[0]
        surface_draws = np.array(kept["second"]["draws"])
        count = min(len(draws), len(surface_draws))
        found = np.empty((count, len(point)))
        for i in range(count):
            # The relation itself goes on beyond the losses seen; that is the forecast.
            at = {self.first.target: self.first.off_link(draws[i])}
            surface = self.second.bind(at, kept["second"]["reference"])
            found[i] = surface.value(surface_draws[i : i + 1])[0]
        found += intervals.noise(kept["second"], count)[:, None]
        blind |= ~np.isfinite(point)
        return intervals.spanned(self.second, point, found, blind, levels, widening)


def status_of(fits: list[Regression]) -> tuple[str, str]:
    """The worst status of several regressions, and why, with the law's formula where several."""
    order = ["converged", "at-bounds", "ill-posed", "too-few-points"]
    worst = max(fits, key=lambda fit: order.index(fit.status))
    if len(fits) == 1 or worst.status == "converged":
        return worst.status, worst.why
    return worst.status, f"{worst.law.formula}: {worst.why}"
