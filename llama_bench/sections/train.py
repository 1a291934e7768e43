"""`train:` how far the sizes are trained, and by which recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from llama_bench.fields import Base, Count, Real, Share, kinds


class FlopBudgets(Base):
    """isoFLOP grids: for each compute budget (FLOPs of the whole training, counted exactly) some
    sizes around the expected optimum, each trained on the tokens that the budget allows."""

    flops: list[Real]
    sizes_per_budget: Count = Field(6, ge=3, le=24)

    @field_validator("flops")
    @classmethod
    def _distinct(cls, values):
        return _distinct(values)


class Sweep(Base):
    """Measures the best peak rate of every size: trainings at `factors` of the recipe's rate on
    `budget` tokens (left out: the smallest budget), whose best the ladder then takes."""

    factors: list[Annotated[Real, Field(gt=0)]] = [0.5, 1.0, 2.0]
    budget: Count | None = Field(None, gt=0)

    @field_validator("factors")
    @classmethod
    def _several(cls, values):
        if len(values) < 2:
            raise ValueError("needs at least two factors to choose between")
        return _distinct(values)


class Train(Base):
    """`budgets` are tokens, or {flops: [...]}. With the schedule wsd each size's trunk is shared by
    its budgets; cosine trains each alone. Rate, batch and warm-up that are left out follow a rule
    of size and `horizon` (tokens; left out: 20 per parameter). `sensitivity` repeats the two
    smallest sizes at half and twice their rate. `gpus` is how many one training takes."""

    budgets: kinds(list=list[Count], keys=FlopBudgets) = [250_000, 500_000, 1_000_000]
    seeds: list[Count] = [0]
    schedule: Literal["wsd", "cosine"] = "wsd"
    context: Count = Field(256, gt=1)
    batch: Count | None = Field(None, gt=0)
    horizon: Count | None = Field(None, gt=0)
    learning_rate: Real | None = Field(None, gt=0)
    sweep: Sweep | None = None
    sensitivity: bool = False
    warmup_tokens: Count | None = None
    decay_share: Share = 0.2
    decay: Literal["linear", "sqrt"] = "sqrt"
    weight_decay: Real = Field(0.1, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.95)
    clip: Real = Field(1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count = Field(1, gt=0)
    gpus: Count = Field(1, gt=0)

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, values):
        return _distinct(values)

    @field_validator("budgets")
    @classmethod
    def _distinct_budgets(cls, values):
        return _distinct(values) if isinstance(values, list) else values

    @model_validator(mode="after")
    def _one_rate(self):
        if self.sweep and self.learning_rate is not None:
            raise ValueError("sweep: measures the rate; leave train.learning_rate out")
        if self.sweep and self.sensitivity:
            raise ValueError("sensitivity: a sweep shows it for every size; leave one of them out")
        if self.batch and self.batch % self.gpus:
            raise ValueError(
                f"batch: {self.batch} sequences cannot be shared by {self.gpus} GPUs; make it a "
                "multiple of train.gpus"
            )
        if self.horizon and self.schedule == "cosine":
            raise ValueError("horizon: a cosine schedule's is its own budget; leave it out")
        return self


def _distinct(values: list) -> list:
    if not values or min(values) < 0 or len(set(values)) < len(values):
        raise ValueError(f"needs at least one value and none of them twice, not {values}")
    return sorted(values)
