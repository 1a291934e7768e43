"""What `train` is asked: a shape, a text, a budget and a recipe."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from llama_bench.fields import Count, Real, Share, short
from llama_bench.shape import Shape
from llama_bench.specs.identity import Spec


class TrainSpec(Spec):
    """One training: warm-up, then a schedule of the rate until `tokens` are spent.

    By default a trunk at a constant rate and a decay to zero within the last tokens (WSD), so
    that budgets share their trunk; `schedule: cosine` has no trunk, and no `decay` of its own.
    `tokens`, `warmup_tokens` and the decay's share count training tokens; `batch` is sequences
    of `context` tokens per step; rates are per step, as AdamW takes them. Without a
    `learning_rate` it is that of the best of the trainings `sweep`. `unique_tokens` is the length
    of the token file's beginning that is read, over and over where the budget is larger. With a
    `cooldown_seed` the branch reads what its trunk has not read in another order, so that branches
    of one trunk and budget differ.
    """

    verb: ClassVar[str] = "train"
    recipe: int = 3
    model: Shape
    data: str
    tokens: Count = Field(gt=0)
    context: Count = Field(gt=1)
    batch: Count = Field(gt=0)
    learning_rate: Real | None = Field(None, gt=0)
    warmup_tokens: Count
    decay_share: Share | None = None
    decay: Literal["linear", "sqrt"] | None = None
    weight_decay: Real = Field(ge=0)
    betas: tuple[Real, Real]
    clip: Real = Field(gt=0)
    seed: Count
    precision: Literal["float32", "bfloat16"] = "float32"
    schedule: Literal["cosine"] | None = None
    sweep: tuple[str, ...] | None = None
    unique_tokens: Count | None = Field(None, gt=0)
    cooldown_seed: Count | None = None

    @model_validator(mode="after")
    def _whole(self):
        if (self.learning_rate is None) == (self.sweep is None):
            raise ValueError("give either learning_rate or sweep")
        branch = (self.decay, self.decay_share)
        if self.schedule is None and None in branch:
            raise ValueError("decay, decay_share: are missing; only a cosine schedule has none")
        if self.schedule is not None and branch != (None, None):
            raise ValueError("decay, decay_share: a cosine schedule has none of its own")
        if self.schedule is not None and self.cooldown_seed is not None:
            raise ValueError("cooldown_seed: a cosine schedule has no cooldown of its own")
        return self

    @property
    def slug(self) -> str:
        cooldown = "" if self.cooldown_seed is None else f"c{self.cooldown_seed}"
        return f"{short(self.model.size)}-{short(self.tokens)}-s{self.seed}{cooldown}"

    @property
    def batch_tokens(self) -> int:
        return self.batch * self.context

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training: the budget, rounded to whole steps."""
        return max(1, round(self.tokens / self.batch_tokens))

    @property
    def warmup_steps(self) -> int:
        return round(self.warmup_tokens / self.batch_tokens)

    @property
    def trunk_steps(self) -> int:
        """Steps before the rate falls: where a branch leaves its trunk."""
        if self.decay_share is None:
            return min(self.warmup_steps, self.steps)
        return self.steps - round(self.steps * self.decay_share)

    @property
    def trunk(self) -> str:
        """What all branches of one trunk share: the spec without the budget and the decay. A
        cosine schedule depends on its budget from the first step after warm-up: it shares none."""
        own = (
            {"tokens", "decay", "decay_share", "cooldown_seed"} if self.schedule is None else set()
        )
        content = self.model_dump(mode="json", exclude_none=True, exclude=own)
        return json.dumps(content, sort_keys=True)
