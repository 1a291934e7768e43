"""What `tasks` is asked: which questions are written from held-out text."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from llama_bench.fields import Count
from llama_bench.specs.identity import Spec


class TasksSpec(Spec):
    """Questions written from the held-out documents of one corpus."""

    verb: ClassVar[str] = "tasks"
    recipe: int = 2
    data: str
    items: Count = Field(gt=0)
    seed: Count = 0

    @property
    def slug(self) -> str:
        return f"held-out-{self.items}"
