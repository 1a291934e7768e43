"""One run of a study: its spec, what it rests on, and what the study calls it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llama_bench.specs import Spec


@dataclass(frozen=True)
class Run:
    """`inputs` is what the command is given, `after` what must be there before it starts;
    `cost` is rough work, in parameters x tokens: dear runs start first."""

    spec: Spec
    inputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    gpus: int = 1
    cost: float = 0.0

    @property
    def path(self) -> str:
        return self.spec.record_path
