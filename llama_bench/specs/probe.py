"""What `probe` is asked: one model, one device, and a grid of batches and contexts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from llama_bench.fields import Count, Real, short
from llama_bench.shape import Shape
from llama_bench.specs.identity import Spec
from llama_bench.specs.pretrained import Pretrained

Phase = Literal["prefill", "decode", "train", "load"]
Precision = Literal["float32", "bfloat16", "int8", "int4"]


class ProbeSpec(Spec):
    """Speed and memory of one shape (with random weights) or of one loaded model, on one device.

    Weights do not change how long a product takes, so a shape is probed once for all budgets and
    seeds, and `random_weights` takes of a pretrained model its shape alone; `members` are the
    shapes of an ensemble. `protocol` is the version of docs/protocol.md that was followed. `engine`
    is what computes: transformers as it is (None), transformers with a static cache and a compiled
    step, or a vLLM server. int8 and int4 are weights alone, multiplied in bfloat16. `max_batch`
    asks for the largest batch of each context too.
    """

    verb: ClassVar[str] = "probe"
    protocol: int = 5
    model: Shape | None = None
    vocab_size: Count | None = None
    pretrained: Pretrained | None = None
    random_weights: bool | None = None
    device: Literal["cpu", "cuda"]
    device_name: str | None = None
    engine: Literal["static", "vllm"] | None = None
    precision: Precision = "float32"
    phases: tuple[Phase, ...]
    batches: tuple[Annotated[Count, Field(gt=0)], ...]
    contexts: tuple[Annotated[Count, Field(gt=0)], ...]
    repeats: Count = Field(ge=1)
    seconds: Real = Field(ge=0)
    max_batch: bool | None = None
    members: tuple[Shape, ...] | None = None

    @model_validator(mode="after")
    def _one_model(self):
        if [self.model, self.pretrained, self.members].count(None) != 2:
            raise ValueError("give one of model (a shape), members (shapes) and pretrained")
        if not self.pretrained and not self.vocab_size:
            raise ValueError("vocab_size: is missing; a shape has none of its own")
        return self

    @property
    def slug(self) -> str:
        shapes = self.members or ((self.model,) if self.model else ())
        of = "+".join(short(shape.size) for shape in shapes)[:60] or self.pretrained.slug
        how = "-".join(
            filter(None, (self.engine, *([self.precision] * (self.precision != "float32"))))
        )
        return f"{of}-{self.device}{how and '-'}{how}"
