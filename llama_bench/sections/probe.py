"""`probe:` where, how and at what price speed and memory are measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from llama_bench.fields import Base, Count, Real
from llama_bench.specs import Phase, Precision


class Probe(Base):
    """Where, how and at what price speed and memory are measured."""

    device: str = "auto"
    """auto, cpu, cuda, or the name of the GPU that has to be there."""
    engines: list[Literal["transformers", "static", "vllm"]] = ["transformers"]
    """What computes; each model is probed with every one."""
    precisions: list[Precision] = ["float32"]
    """Each model is probed in every one; int8 and int4 are of weights alone."""
    phases: list[Phase] = ["prefill", "decode", "train"]
    """What is timed; [] for no probes."""
    batches: list[Count] = [1, 4]
    """Sequences at once."""
    contexts: list[Count] = [64, 256]
    """Tokens of prompts, and depth of decoding."""
    max_batch: bool = False
    """Find the largest batch of each context too."""
    repeats: Count = Field(10, ge=1)
    """Of each cell, at least."""
    seconds: Real = Field(5.0, ge=0)
    """That the repeats of each cell last, at least."""
    price_per_hour: Real | None = Field(None, ge=0)
    """Of the device, in any currency: gives prices per million tokens."""

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
