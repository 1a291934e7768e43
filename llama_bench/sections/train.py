"""`train:` how far the sizes are trained, and by which recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from llama_bench.fields import Base, Count, Positive, Real, Share, kinds


class FlopBudgets(Base):
    """isoFLOP grids: for each compute budget (FLOPs of the whole training, counted exactly) some
    sizes around the expected optimum, each trained on the tokens that the budget allows."""

    flops: list[Real]
    """FLOPs of a whole training, each a grid of its own."""
    sizes_per_budget: Count = Field(6, ge=3, le=24)
    """How many sizes share each compute budget."""

    @field_validator("flops")
    @classmethod
    def _distinct(cls, values):
        return _distinct(values)


class Sweep(Base):
    """Measures the best peak rate of every size, which the ladder then takes."""

    factors: list[Positive] = [0.5, 1.0, 2.0]
    """Of the recipe's rate: a short training at each."""
    budget: Count | None = Field(None, gt=0)
    """Tokens of each; left out, the smallest budget."""

    @field_validator("factors")
    @classmethod
    def _several(cls, values):
        if len(values) < 2:
            raise ValueError("needs at least two factors to choose between")
        return _distinct(values)


class Train(Base):
    """How far each size is trained, and how."""

    budgets: kinds(list=list[Count], keys=FlopBudgets) = [250_000, 500_000, 1_000_000]
    """Tokens that each size is trained on, such as [250k, 1M], or {flops: [...]}."""
    seeds: list[Count] = [0]
    """Of weights and order of data; a training each."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """wsd: a size's trunk is shared by its budgets. cosine: each budget is trained alone."""
    context: Count = Field(256, gt=1)
    """Tokens of a window."""
    batch: Count | None = Field(None, gt=0)
    """Sequences a step; left out, a rule of the horizon."""
    horizon: Count | None = Field(None, gt=0)
    """Tokens that rate, batch and warm-up are meant for; left out, 20 per parameter."""
    learning_rate: Positive | None = None
    """Peak rate of all sizes; left out, a rule of size and horizon."""
    sweep: Sweep | None = None
    """Measure the best rate of every size first."""
    sensitivity: bool = False
    """Repeat the two smallest sizes at half and twice their rate."""
    warmup_tokens: Count | None = None
    """Tokens over which the rate rises; left out, a rule of size and horizon."""
    decay_share: Share = 0.2
    """Of a budget: its last part, in which the rate falls to zero."""
    decay: Literal["linear", "sqrt"] = "sqrt"
    """How the rate falls."""
    weight_decay: Real = Field(0.1, ge=0)
    """AdamW's, of matrices."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's."""
    clip: Positive = 1.0
    """The largest norm that a step's gradient may have."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What products are computed in; weights and optimizer stay float32."""
    threads: Count = Field(1, gt=0)
    """Of one training on a CPU."""
    gpus: Count = Field(1, gt=0)
    """How many one training takes."""

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
