"""Whether the best learning rate stays where the recipe puts it, from size to size.

A rate that is right for one size and wrong for the next bends every law fitted to the ladder
(Porian et al. 2024, arXiv 2406.19146, section 3.4), and no fit can tell. So rates are varied, in a
sweep or in a strip beside the ladder, and a ladder whose best rate drifts is flagged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llama_bench.derive.words import show
from llama_bench.derive.words.laddertext import of_role, seed_noise

DRIFT = math.sqrt(2)  # of the best factor between sizes: half a step, where steps are doublings


@dataclass(frozen=True)
class Rates:
    """One size's losses by peak rate, as a factor of the recipe's. `noise`, in nats per token, is
    what two of them may differ by chance."""

    model: str
    params: float
    tokens: float
    role: str
    losses: dict[float, float]
    diverged: tuple[float, ...]
    noise: float

    @property
    def tried(self) -> list[float]:
        return sorted([*self.losses, *self.diverged])

    @property
    def best(self) -> float | None:
        return min(self.losses, key=self.losses.get, default=None)

    @property
    def flat(self) -> bool:
        losses = self.losses.values()
        return not self.diverged and max(losses) - min(losses) <= self.noise

    @property
    def nearest(self) -> list[float]:
        """The factor of the lowest loss between its neighbours; none where there are no three."""
        factors = sorted(self.losses)
        if len(factors) < 3:
            return []
        first = min(max(factors.index(self.best) - 1, 0), len(factors) - 3)
        return factors[first : first + 3]

    def parabola(self, factors) -> np.ndarray:
        """Losses at `factors` by the parabola in log factor through the `nearest` three."""
        return np.polyval(self._coefficients(), np.log(factors) - math.log(self.nearest[1]))

    def _coefficients(self) -> np.ndarray:
        """Bend, slope and level about the middle one of the three."""
        x = np.log(self.nearest) - math.log(self.nearest[1])
        return np.polyfit(x, [self.losses[factor] for factor in self.nearest], 2)

    @property
    def optimum(self) -> float | None:
        """Vertex of the parabola; None where it does not lie between the three."""
        if not self.nearest:
            return None
        bend, slope, _ = self._coefficients()
        if bend <= 0:
            return None
        factor = self.nearest[1] * math.exp(-slope / (2 * bend))
        return factor if self.nearest[0] < factor < self.nearest[2] else None

    @property
    def edge(self) -> float | None:
        """The least or greatest factor tried, where the loss is lowest there by more than the
        noise. A rate that diverged bounds the optimum as a worse loss does."""
        others = [loss for factor, loss in self.losses.items() if factor != self.best]
        ends = (self.tried[0], self.tried[-1])
        if self.optimum is not None or self.best not in ends or not others:
            return None
        return self.best if min(others) - self.losses[self.best] > self.noise else None


def rates(tables) -> list[Rates]:
    """Every size whose rate was varied, smallest first."""
    import pandas

    trainings, noise = tables["trainings"], seed_noise(tables["ladder"])
    found = []
    for model, rows in of_role(trainings, "sweep").groupby("model", sort=False):
        found.append(_rates(model, "sweep", rows, noise))
    for model, rows in of_role(trainings, "sensitivity").groupby("model", sort=False):
        rows = pandas.concat([rows, _at_the_recipes(trainings, rows.iloc[0])])
        found.append(_rates(model, "sensitivity", rows, noise))
    several = [entry for entry in found if len(entry.tried) > 1]
    return sorted(several, key=lambda entry: (entry.params, entry.model))


def _at_the_recipes(trainings, varied):
    """The ladder's own run beside the strip: the same size, budget, seed and text."""
    own = of_role(trainings, "ladder")
    same = own["data"].isna()
    for name in ("model", "budget", "seed"):
        same &= own[name] == varied[name]
    return own[same].assign(factor=1.0)


def _rates(model: str, role: str, rows, noise: tuple[float, int] | None) -> Rates:
    known = rows.dropna(subset=["loss"]).sort_values("factor")
    diverged = rows.loc[rows["status"] == "diverged", "factor"].sort_values()
    error = known["loss_standard_error"].max()
    if noise is not None:
        error = noise[0] * math.sqrt(2) * known["loss"].mean()  # of a difference of two runs
    return Rates(
        model=model,
        params=float(rows["parameters_without_embeddings"].iloc[0]),
        tokens=float(rows["budget"].iloc[0]),
        role=role,
        losses=dict(zip(known["factor"], known["loss"], strict=True)),
        diverged=tuple(diverged),
        noise=0.0 if show.absent(error) else float(error),
    )


def drift(measured: list[Rates]) -> str:
    """The warning, where the best rate moves with size or lies beyond those tried; else nothing."""
    clear = [entry for entry in measured if not entry.flat]
    edges = [entry for entry in clear if entry.edge is not None]
    inside = [entry for entry in clear if entry.optimum is not None]
    found = [
        f"at {entry.model} the loss is lowest at the {_end(entry)} rate tried, "
        f"{entry.edge:g} times the recipe’s"
        for entry in edges
    ]
    if len(inside) > 1:
        first, last = inside[0], inside[-1]
        if abs(math.log(last.optimum / first.optimum)) > math.log(DRIFT):
            found.append(
                f"the best rate is {show.digits(first.optimum, 2)} times the recipe’s at "
                f"{first.model} and {show.digits(last.optimum, 2)} times at {last.model}"
            )
    if not found:
        return ""
    follows = "laws fitted to it mix size with rate"
    if clear[0].role == "sweep":
        follows = "each size takes the best of the rates tried, so laws rest on how fine they lie"
    return f"{show.listed(found)}; {follows}."


def _end(entry: Rates) -> str:
    return "highest" if entry.edge == entry.tried[-1] else "lowest"


def words(tables) -> list[str]:
    """Where the best rate of each size lies, and which rates diverged."""
    measured = rates(tables)
    if not measured:
        return []
    by = "seeds" if seed_noise(tables["ladder"]) else "the held-out text"
    told = [f"{_said(entry, by)} at {entry.model}" for entry in measured if entry.losses]
    lost = [
        f"{entry.model} at {show.listed(f'{factor:g}' for factor in entry.diverged)} times"
        for entry in measured
        if entry.diverged
    ]
    said = {
        "The best learning rate, as a factor of the recipe’s": told,
        "Diverged, so without a loss": lost,
    }
    return [f"{what}: {show.listed(texts)}." for what, texts in said.items() if texts]


def _said(entry: Rates, by: str) -> str:
    if entry.flat and entry.noise:
        return f"not told from the noise of {by} ({show.digits(entry.noise, 2)} nats per token)"
    if entry.optimum is not None:
        return show.digits(entry.optimum, 2)
    place = "the edge" if entry.best in (entry.tried[0], entry.tried[-1]) else "the best"
    return f"{entry.best:g} ({place} of those tried)"
