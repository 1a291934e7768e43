"""`evaluate:` what every model is asked."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from llama_bench import sources
from llama_bench.fields import Base, Count, Name
from llama_bench.sections.generation import Generation, not_served

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


Version = Annotated[
    str,
    BeforeValidator(
        lambda given: str(given) if type(given) in (int, float) else given,
        json_schema_input_type=str | int | float,
    ),
]


class Suite(Base):
    """lm-eval tasks that are asked together of every model."""

    tasks: list[str] = ["heldout"]
    """Names of lm-eval tasks or groups; heldout stands for all held-out tasks."""
    include: str | None = None
    """A folder of further task files."""
    shots: Count | None = None
    """Examples before every question; left out, as many as the task says."""
    limit: Count | None = Field(None, gt=0)
    """Items of each task; left out, all."""
    seed: Count | None = None
    """Of what is drawn, such as examples before a question; left out, 0. The `lm_eval` command's
    `--seed 0` is the same; by itself it draws examples by 1234."""
    batch: Count | None = Field(None, gt=0)
    """Rows of a pass at most; left out, as many as fit."""
    chat_template: bool = False
    """Ask in the form that a model was tuned to."""
    versions: dict[str, Version] = {}
    """By task: the version that its file must have, so that a change is told."""
    generation: Generation | None = None
    """Instead of the tasks' own settings."""

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
    """What every model is asked."""

    suites: dict[Name, Suite] = {"heldout": Suite()}
    """By a name each."""
    items: Count = Field(120, gt=0)
    """Of each held-out task."""
    prompts: list[str] = ["import", "def main(", "class"]
    """Texts that every model continues, side by side in the report."""
    prompt_tokens: Count = 40
    """How far."""
    states: list[Literal["end", "trunk", "averaged"]] = ["end"]
    """Of every training: its end, the trunk that it left, or the trunk averaged."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of weights and products."""
    quantization: Literal["int8", "int4"] | None = None
    """Of the weights of linear layers."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What computes: transformers, or a vLLM server in an environment of its own."""
    bos: Literal["once", "stock"] = "once"
    """once, or stock: as often as lm-eval's own models charge it."""

    @model_validator(mode="after")
    def _is_served(self):
        for name, suite in self.suites.items():
            asked = suite.generation.asked if suite.generation else {}
            if self.engine == "vllm" and (beyond := not_served(asked)):
                raise ValueError(
                    f"suites.{name}.generation: vllm does not do {', '.join(beyond)}; leave them "
                    "out, or use engine: transformers"
                )
        return self
