"""`fuse:` which models become one, and by which methods."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from llama_bench.fields import Base, Count, Name, Positive, Real, kinds
from llama_bench.specs import OF_OUTPUTS, Method, check_weights


class Related(Base):
    """Members that are made for it, of every one of the fusion's models."""

    cooldowns: Count | None = Field(None, ge=2)
    """How many branches of one trunk that read different text."""
    seeds: Count | None = Field(None, ge=2)
    """How many trainings with other seeds."""
    finetune: list[Name] | None = None
    """Names under `finetune`: what they made of one base from all labelled data."""

    @model_validator(mode="after")
    def _one_way(self):
        if [self.cooldowns, self.seeds, self.finetune].count(None) != 2:
            raise ValueError("give one of cooldowns (how many), seeds (how many) and finetune")
        if self.finetune == []:
            raise ValueError("finetune: names none")
        return self


class Fusion(Base):
    """Which models become one, by which methods, and what that is held against."""

    members: kinds(list=list[Name], keys=Related)
    """Names of models, or {cooldowns: 4}, {seeds: 3}, {finetune: [...]} of each of the models."""
    models: list[Name] = []
    """By name; all that are trained, if empty."""
    budget: Real | None = None
    """Of the members; left out, the largest."""
    methods: Annotated[list[Method], Field(min_length=1)] = ["uniform", "mixture"]
    """Means of weights (uniform, softmax, given, greedy, slerp, mergekit) or of outputs (mixture,
    product)."""
    weights: list[Real] | None = None
    """Of method given, or of weighting given."""
    weighting: Literal["softmax", "given"] | None = None
    """Of outputs: softmax or given; left out, uniform."""
    temperature: Positive = 1.0
    """Softmax's."""
    configuration: dict[str, Any] | None = None
    """mergekit's own, in which members are member_1, member_2, ..."""
    line: Count = 5
    """Points measured between the first two members; 0 for none."""
    growing: bool = True
    """Measure fusions of fewer members too."""
    draws: Count = Field(6, ge=1)
    """Sets of members that growth is the mean of, for each number of them; 1: the first ones."""
    control: bool = True
    """Add one model trained with the compute of all, the uniform average and the mixture, where
    members allow them."""
    probe: bool = True
    """Measure an ensemble's speed and memory (of models trained here, and local Llamas)."""
    allow_unrelated: bool = False
    """Average weights of models without a common ancestor."""
    suites: list[Name] | None = None
    """Of evaluate, which the outcome is asked; left out, all."""

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

    @property
    def related(self) -> bool:
        """Whether the members are made here of one trunk or of one base."""
        return isinstance(self.members, Related) and self.members.seeds is None

    @property
    def all_methods(self) -> list[str]:
        """Those asked for, and with `control` the controls among methods that members allow."""
        if not self.control:
            return list(self.methods)
        averaged = self.related or {*self.of_weights} - {"mergekit"}
        added = [*(["uniform"] if averaged else []), "mixture"]
        return [*self.methods, *(each for each in added if each not in self.methods)]
