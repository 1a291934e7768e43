"""The ladder: which sizes are trained, and how far.

Budgets in tokens cross every size with every budget. Budgets in FLOPs are isoFLOP grids (Hoffmann
et al. 2022, approach 2): around the expected optimum of each budget some sizes, each trained on
the tokens that the budget then allows. The sizes lie on one grid for all budgets, six to a factor
of ten, so that neighbouring budgets share sizes, and with them trunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llama_bench import recipe
from llama_bench.sections.models import Trained
from llama_bench.sections.train import FlopBudgets, Train
from llama_bench.shape import shape_of_size

SIZES_PER_DECADE = 6
SMALLEST, LARGEST = 5_000, 10**12


@dataclass(frozen=True)
class Step:
    """One budget of a size: `tokens`, and the `flops` that they follow from, if they do."""

    tokens: int
    flops: float | None = None

    @property
    def budget(self) -> float:
        """As config.yaml names it: tokens, or FLOPs."""
        return self.flops or self.tokens


@dataclass(frozen=True)
class Rung:
    """One size of the ladder with its budgets, the smallest first."""

    model: Trained
    steps: tuple[Step, ...]


def rungs(models: list[Trained], train: Train, vocab_size: int, context: int) -> list[Rung]:
    """Every size with its budgets. Raises ValueError where a compute budget allows no training."""
    if not isinstance(train.budgets, FlopBudgets):
        steps = tuple(Step(tokens) for tokens in train.budgets)
        return [Rung(model, steps) for model in models]
    found: dict[str, tuple[Trained, list[Step]]] = {}
    for flops in train.budgets.flops:
        wanted = models or _around_optimum(
            flops, train.budgets.sizes_per_budget, vocab_size, context
        )
        for model in wanted:
            tokens = round(flops / model.shape.flops_per_token(vocab_size, context))
            found.setdefault(model.label, (model, []))[1].append(Step(tokens, flops))
    listed = [Rung(model, tuple(steps)) for model, steps in found.values()]
    return sorted(listed, key=lambda rung: rung.model.shape.size)


def _around_optimum(flops: float, count: int, vocab_size: int, context: int) -> list[Trained]:
    """`count` sizes of the grid, as many above as below the one whose 20 tokens per parameter
    cost just `flops`."""

    def cost(size: int) -> float:
        per_token = shape_of_size(size).flops_per_token(vocab_size, context)
        return float(per_token) * size * recipe.TOKENS_PER_PARAMETER

    grid = [_grid_size(place) for place in range(_place(SMALLEST), _place(LARGEST))]
    grid = [size for size in grid if size >= SMALLEST]
    nearest = _nearest(grid, flops, cost)
    first = max(0, nearest - (count - 1) // 2)
    return [Trained(size=size) for size in grid[first : first + count]]


def _nearest(grid: list[int], flops: float, cost) -> int:
    """Place in `grid` of the size whose cost is nearest in ratio; costs rise with the size."""
    low, high = 0, len(grid) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(grid[middle]) <= flops else (low, middle)
    return min((low, high), key=lambda place: abs(math.log(cost(grid[place]) / flops)))


def _place(size: int) -> int:
    return math.floor(SIZES_PER_DECADE * math.log10(size))


def _grid_size(place: int) -> int:
    """10, 15, 22, 32, 46, 68 and so on, two digits: sizes that can be said."""
    return int(float(f"{10 ** (place / SIZES_PER_DECADE):.2g}"))
