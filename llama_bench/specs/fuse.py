"""What `fuse` is asked: which models become one, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from llama_bench.fields import Count, Real
from llama_bench.specs.identity import Spec
from llama_bench.specs.lineage import Member

OfWeights = Literal["uniform", "softmax", "given", "greedy", "slerp", "mergekit"]
OfOutputs = Literal["mixture", "product"]
OF_OUTPUTS: tuple[str, ...] = get_args(OfOutputs)
Method = Literal[OfWeights, OfOutputs]  # one list of names, so that a wrong one is told once


class FuseSpec(Spec):
    """Several models as one: their weights averaged, or their outputs.

    Of weights: `uniform`, `softmax` (w_i = softmax(-L_i / temperature) over the members' losses on
    held-out text), `given` weights, `greedy` (a soup: members join, the best first, as long as the
    loss falls; Wortsman et al. 2022, arXiv 2203.05482, recipe 1), `slerp` of two, or what
    `mergekit` does with `configuration`. Of outputs: a `mixture` of the members' next-token
    probabilities or a `product` (the mean of their log-probabilities, normalised), with weights
    that are even, or as `weighting` says. `data` is the prepare run whose held-out text the losses
    are of. `line` is how many points of the straight line between the first two members are
    measured, both ends among them; `growing` asks for the loss of 1, 2, ... members: of the first
    ones, or with `draws` the mean over at most so many sets of as many. `control` is another model
    whose loss is measured on the same windows.
    """

    verb: ClassVar[str] = "fuse"
    recipe: int = 2
    members: Annotated[tuple[Member, ...], Field(min_length=1)]
    method: Method
    weighting: Literal["softmax", "given"] | None = None
    weights: tuple[Real, ...] | None = None
    temperature: Real | None = Field(None, gt=0)
    configuration: dict[str, Any] | None = None
    data: str
    line: Count | None = Field(None, ge=3)
    growing: bool | None = None
    draws: Count | None = Field(None, ge=2)
    control: Member | None = None
    allow_unrelated: bool | None = None

    @property
    def of_outputs(self) -> bool:
        return self.method in OF_OUTPUTS

    @model_validator(mode="after")
    def _whole(self):
        if len(self.members) < 2:
            raise ValueError("members: a single one is nothing to fuse; name two or more")
        if (self.weighting is not None) and not self.of_outputs:
            raise ValueError("weighting: is of mixture and product; other methods are their own")
        ways = {self.method, self.weighting}
        if ("softmax" in ways) != (self.temperature is not None):
            raise ValueError("temperature: belongs to softmax, which needs one")
        if ("given" in ways) != (self.weights is not None):
            raise ValueError("weights: belong to given weights, which need them")
        if self.weights is not None:
            check_weights(self.weights, mixed=self.of_outputs)
            if len(self.weights) != len(self.members):
                raise ValueError(f"weights: {len(self.weights)} for {len(self.members)} members")
        if self.method == "slerp" and len(self.members) != 2:
            raise ValueError(f"members: slerp is of two models, not {len(self.members)}")
        if (self.method == "mergekit") != (self.configuration is not None):
            raise ValueError("configuration: belongs to mergekit, which needs one")
        if self.draws and not self.growing:
            raise ValueError("draws: are of growing, which is not asked for")
        return self

    @property
    def slug(self) -> str:
        return f"{self.method}-of-{len(self.members)}-{self.members[0].slug}"[:70]


def check_weights(weights: Sequence[float], mixed: bool) -> None:
    """Of members, of their outputs if they are `mixed`. Raises ValueError."""
    if abs(sum(weights) - 1) > 1e-6:
        raise ValueError(f"weights: sum to {sum(weights):g}, not to one")
    if mixed and min(weights) < 0:
        raise ValueError("weights: of mixture and product are 0 or more")
