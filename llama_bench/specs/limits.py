"""What `limits` is asked: what one device can do in one precision."""

from __future__ import annotations

from typing import ClassVar, Literal

from llama_bench.specs.identity import Spec


class LimitsSpec(Spec):
    """The rates that a device's work is held against: a matrix product, a copy, a launch.
    `protocol` is the version of docs/protocol.md that was followed."""

    verb: ClassVar[str] = "limits"
    protocol: int = 2
    device: Literal["cpu", "cuda"]
    device_name: str | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def slug(self) -> str:
        return f"{self.device}-{self.precision}"
