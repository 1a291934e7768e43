"""`fuse:` which models become one, and by which methods."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from llama_bench.fields import Base, Count, Name, Real, kinds
from llama_bench.specs import OF_OUTPUTS, Method, check_weights


class Related(Base):
    """Members that are made for it, of every one of the fusion's models: some `cooldowns` of one
    trunk that read different text, some trainings with other `seeds`, or what the fine-tunings
    named under `finetune` made of one base (all labelled data, every method and seed)."""

    cooldowns: Count | None = Field(None, ge=2)
    seeds: Count | None = Field(None, ge=2)
    finetune: list[Name] | None = None

    @model_validator(mode="after")
    def _one_way(self):
        if [self.cooldowns, self.seeds, self.finetune].count(None) != 2:
            raise ValueError("give one of cooldowns (how many), seeds (how many) and finetune")
        if self.finetune == []:
            raise ValueError("finetune: names none")
        return self


class Fusion(Base):
    """`members` are names of models, or {cooldowns: 4}, {seeds: 3}, {finetune: [...]} of each of
    the trained `models` (all, if empty) at a `budget` (left out: the largest).

    `methods` average weights (uniform, softmax, given, greedy, slerp, mergekit) or outputs
    (mixture, product). Averaging weights asks for a common ancestor, unless `allow_unrelated`.
    `temperature` is softmax's; `weights` are those of given; `weighting` is the outputs'; `line`
    are the points measured between the first two members (0: none), `growing` the first 1, 2, ...
    of them, `control` one model trained with the compute of all, `probe` the ensemble's speed and
    memory. `suites` of evaluate that the
    outcome is asked (left out: all). mergekit's `configuration` calls the members member_1,
    member_2, ...
    """

    members: kinds(list=list[Name], keys=Related)
    models: list[Name] = []
    budget: Real | None = None
    methods: Annotated[list[Method], Field(min_length=1)] = ["uniform", "mixture"]
    weights: list[Real] | None = None
    weighting: str | None = Field(None, pattern="^(softmax|given)$")
    temperature: Real = Field(1.0, gt=0)
    configuration: dict[str, Any] | None = None
    line: Count = 5
    growing: bool = True
    control: bool = True
    probe: bool = True
    allow_unrelated: bool = False
    suites: list[Name] | None = None

    @field_validator("line")
    @classmethod
    def _both_ends(cls, value):
        if value in (1, 2):
            raise ValueError(f"{value} points are the ends alone; give 3 or more, or 0 for no line")
        return value

    @model_validator(mode="after")
    def _whole(self):
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods: names one twice: {self.methods}")
        if isinstance(self.members, list):
            if len(set(self.members)) < len(self.members):
                raise ValueError(f"members: names one twice: {self.members}")
            if len(self.members) < 2:
                raise ValueError("members: a single one is nothing to fuse; name two or more")
            if self.models or self.budget:
                raise ValueError("models, budget: belong to members of one model; leave them out")
        weighed = "given" in self.methods or self.weighting == "given"
        if weighed and self.weights is None:
            raise ValueError("weights: are missing; given weights need one for each member")
        if self.weights is not None and not weighed:
            raise ValueError(
                "weights: are used by methods: [given] or weighting: given alone; leave them out"
            )
        if self.weights is not None:
            check_weights(self.weights, mixed=self.weighting == "given")
        if ("mergekit" in self.methods) != (self.configuration is not None):
            raise ValueError("configuration: belongs to mergekit, which needs one")
        if self.weighting and not set(self.methods) & set(OF_OUTPUTS):
            raise ValueError("weighting: is of mixture and product; add one, or leave it out")
        return self

    @property
    def of_weights(self) -> list[str]:
        return [method for method in self.methods if method not in OF_OUTPUTS]
