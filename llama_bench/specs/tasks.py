"""What `tasks` is asked: which questions are written from held-out text."""

from __future__ import annotations

import sys
from typing import ClassVar

from pydantic import Field

from llama_bench.fields import Count
from llama_bench.specs.identity import Spec


def running_grammar() -> str | None:
    """Of the Python that runs this: its version, None for 3.11."""
    version = ".".join(map(str, sys.version_info[:2]))
    return None if version == "3.11" else version


class TasksSpec(Spec):
    """Questions written from the held-out documents of one corpus.

    `apart_from` are the ids of examples runs: models that learn from those are asked the same
    questions, less those about documents that the examples they learn from are of. `grammar` is the
    version of Python whose parser says which code is valid: that of the Python that asks, and None
    for 3.11, whose questions had no such field.
    """

    verb: ClassVar[str] = "tasks"
    recipe: int = 3
    data: str
    items: Count = Field(gt=0)
    seed: Count = 0
    apart_from: tuple[str, ...] | None = None
    grammar: str | None = Field(default_factory=running_grammar)

    @property
    def slug(self) -> str:
        return f"held-out-{self.items}"
