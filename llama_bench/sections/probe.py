"""`probe:` where, how and at what price speed and memory are measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from llama_bench.fields import Base, Count, Real
from llama_bench.specs import Phase, Precision


class Probe(Base):
    """`device` is auto, cpu, cuda, or the name of the GPU that has to be there. Every model is
    probed with each of the `engines` in each of the `precisions`. `price_per_hour` of the device,
    in any currency, gives prices per million tokens."""

    device: str = "auto"
    engines: list[Literal["transformers", "static", "vllm"]] = ["transformers"]
    precisions: list[Precision] = ["float32"]
    phases: list[Phase] = ["prefill", "decode", "train"]
    batches: list[Count] = [1, 4]
    contexts: list[Count] = [64, 256]
    max_batch: bool = False
    repeats: Count = Field(5, ge=1)
    seconds: Real = Field(0.3, ge=0)
    price_per_hour: Real | None = Field(None, ge=0)

    @field_validator("batches", "contexts")
    @classmethod
    def _positive(cls, values):
        if not values or min(values) < 1:
            raise ValueError(f"needs counts of 1 and above, not {values}")
        return values

    @field_validator("engines", "precisions")
    @classmethod
    def _distinct(cls, values):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"needs at least one and none of them twice, not {values}")
        return values

    @property
    def kind(self) -> str | None:
        """cpu or cuda; None where it is the machine's to say."""
        if self.device == "auto":
            return None
        return "cpu" if self.device == "cpu" else "cuda"

    @property
    def device_name(self) -> str | None:
        return None if self.device in ("auto", "cpu", "cuda") else self.device
