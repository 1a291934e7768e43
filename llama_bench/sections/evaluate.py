"""`evaluate:` what every model is asked."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from llama_bench import sources
from llama_bench.fields import Base, Count, Name

# the tasks that `tasks` writes from held-out documents (measure/tasks.py writes each)
HELD_OUT_TASKS = (
    "heldout_bits_per_byte",
    "heldout_cloze",
    "heldout_next_line",
    "heldout_valid_code",
    "heldout_grammar",
    "heldout_part",
    "heldout_identifier",
    "heldout_question",
    "heldout_line_end",
)


class Suite(Base):
    """lm-eval tasks asked together of every model; `heldout` stands for all held-out tasks.
    `generation` replaces the tasks' own generation settings; `chat_template` asks in the form that
    a model was tuned to. `versions` pins tasks to those of their files, so that a study is told
    when a task has changed; it names no run."""

    tasks: list[str] = ["heldout"]
    include: str | None = None
    shots: Count | None = None
    limit: Count | None = Field(None, gt=0)
    chat_template: bool = False
    versions: dict[str, str | int | float] = {}
    generation: dict[str, bool | int | float | str | list[str]] | None = None

    @model_validator(mode="after")
    def _is_there(self):
        if not self.tasks:
            raise ValueError("tasks: names none; leave the suite out instead")
        self.include_digest  # noqa: B018 - a folder that is not there is refused here, by key
        return self

    @cached_property
    def include_digest(self) -> str | None:
        return sources.folder_digest(self.folder) if self.folder else None

    @property
    def folder(self) -> Path | None:
        """Of further task files."""
        return Path(self.include).expanduser() if self.include else None

    @property
    def names(self) -> tuple[str, ...]:
        listed = [HELD_OUT_TASKS if task == "heldout" else (task,) for task in self.tasks]
        return tuple(dict.fromkeys(name for names in listed for name in names))


class Evaluate(Base):
    """`states` of every training: its end, the trunk that it left, or the trunk averaged.
    `bos: stock` scores texts as lm-eval's own models do."""

    suites: dict[Name, Suite] = {"heldout": Suite()}
    items: Count = Field(120, gt=0)
    prompts: list[str] = ["import", "def main(", "class"]
    prompt_tokens: Count = 40
    states: list[Literal["end", "trunk", "averaged"]] = ["end"]
    precision: Literal["float32", "bfloat16"] = "float32"
    quantization: Literal["int8", "int4"] | None = None
    engine: Literal["transformers", "vllm"] = "transformers"
    bos: Literal["once", "stock"] = "once"
