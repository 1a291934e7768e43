"""The sections of config.yaml as types: what may be written there, and its defaults.

What is wrong within one section is refused here, by key; what does not hold together between them,
in config.py. The docstrings are the help that an editor shows.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from llama_bench import sources
from llama_bench.fields import Base, Count, Name, Real, Share, short, unknown
from llama_bench.shape import Shape, shape_of_size
from llama_bench.specs import Corpus, Pretrained

# the tasks that `tasks` writes from held-out documents (measure/tasks.py writes each)
HELD_OUT_TASKS = (
    "heldout_bits_per_byte",
    "heldout_next_line",
    "heldout_valid_code",
    "heldout_identifier",
    "heldout_line_end",
)

# law -> fewest (points, sizes, budgets) it can be fitted to (derive/laws knows the formulas)
LAW_NEEDS = {
    "chinchilla": (6, 3, 3),
    "kaplan": (5, 2, 2),
    "overtraining": (5, 2, 2),
    "frontier": (4, 2, 2),
    "envelope": (4, 3, 2),
}


class Data(Base):
    """`corpus` is python-stdlib, python-packages, or one or several paths of .txt, .jsonl,
    .parquet files; `max_bytes` takes a part of it, for trials."""

    corpus: str | list[str] = "python-stdlib"
    text_key: str = "text"
    vocab_size: Count = Field(1024, ge=300, le=1_000_000)
    held_out: Share = Field(0.05, gt=0, le=0.4)
    max_bytes: Count | None = Field(None, gt=0)
    seed: Count = 0

    @model_validator(mode="after")
    def _is_there(self):
        try:
            self.reference  # noqa: B018 - what is no text is refused here, by key
        except ValueError as error:
            raise ValueError(f"corpus: {error}") from None
        return self

    @cached_property
    def reference(self) -> Corpus:
        return sources.corpus(self.corpus, self.text_key, self.max_bytes)


class Trained(Base):
    """A model to train: a target `size` (parameters without embeddings), or a shape."""

    name: Name | None = None
    size: Count | None = None
    layers: Count | None = None
    width: Count | None = None
    heads: Count | None = None
    kv_heads: Count | None = None
    ffn_width: Count | None = None
    tied_embeddings: bool = True
    learning_rate: Real | None = None

    @model_validator(mode="after")
    def _one_way(self):
        given = [key for key in ("layers", "width", "heads") if getattr(self, key) is not None]
        if (self.size is None) == (not given):
            raise ValueError("give either size (a target) or layers, width and heads (a shape)")
        if given and len(given) < 3:
            raise ValueError("a shape needs all of layers, width and heads")
        self.shape  # noqa: B018 - a shape that cannot be built is refused here, by key
        return self

    @cached_property
    def shape(self) -> Shape:
        if self.size is not None:
            return shape_of_size(self.size, self.tied_embeddings)
        fields = self.model_dump(exclude_none=True, exclude={"name", "size", "learning_rate"})
        try:
            return Shape(**fields)
        except ValidationError as error:
            messages = (item["msg"].removeprefix("Value error, ") for item in error.errors())
            raise ValueError("; ".join(messages)) from None

    @property
    def label(self) -> str:
        return self.name or short(self.size or self.shape.size)


class Loaded(Base):
    """A model trained elsewhere: a local folder `path`, or a Hub `repo` at a `revision`."""

    name: Name | None = None
    path: str | None = None
    repo: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _one_origin(self):
        if (self.path is None) == (self.repo is None):
            raise ValueError("give either path (a local folder) or repo (a Hub repository)")
        if self.repo and not self.revision:
            raise ValueError("revision: is missing; a Hub repository needs the one to load")
        return self

    @property
    def label(self) -> str:
        return self.name or Path(self.path or self.repo).name

    @model_validator(mode="after")
    def _is_there(self):
        self.reference  # noqa: B018 - a folder without a model is refused here, by key
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.path,) if self.path else ()

    @cached_property
    def reference(self) -> Pretrained:
        if self.repo:
            return Pretrained(repo=self.repo, revision=self.revision)
        return Pretrained(digest=sources.model_digest(Path(self.path)))


class Models(Base):
    train: list[Trained] = []
    pretrained: list[Loaded] = []

    @model_validator(mode="after")
    def _distinct(self):
        labels = [model.label for model in (*self.train, *self.pretrained)]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(
                    f"two models are called {label!r}; give one of them another name, "
                    f"with name: (all: {', '.join(labels)})"
                )
        recipes: dict[tuple, str] = {}
        for model in self.train:
            other = recipes.setdefault((model.shape, model.learning_rate), model.label)
            if other != model.label:
                raise ValueError(
                    f"{other!r} and {model.label!r} are the same model; leave one of them out"
                )
        if not labels:
            raise ValueError("no model is given; add one under train: or pretrained:")
        return self


class Train(Base):
    """The ladder's recipe. `budgets` are tokens; each size's trunk is shared by all budgets."""

    budgets: list[Count] = [250_000, 500_000, 1_000_000]
    seeds: list[Count] = [0]
    context: Count = Field(256, gt=1)
    batch: Count = Field(2, gt=0)
    learning_rate: Real | None = None
    warmup_tokens: Count = 20_000
    decay_share: Share = 0.2
    decay: Literal["linear", "sqrt"] = "sqrt"
    weight_decay: Real = 0.1
    betas: tuple[Real, Real] = (0.9, 0.95)
    clip: Real = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count = Field(1, gt=0)

    @field_validator("budgets", "seeds")
    @classmethod
    def _distinct(cls, values):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"needs at least one value and none of them twice, not {values}")
        return sorted(values)

    @model_validator(mode="after")
    def _warms_up(self):
        if min(self.budgets) < self.batch * self.context:
            raise ValueError(
                f"budgets: {min(self.budgets)} tokens are less than one step "
                f"(batch x context = {self.batch * self.context})"
            )
        trunk = min(self.budgets) * (1 - self.decay_share)
        if self.warmup_tokens >= trunk:
            raise ValueError(
                f"warmup_tokens: {self.warmup_tokens} reach beyond the constant part of the "
                f"smallest budget ({trunk:.0f} tokens); shorten the warm-up or raise the budget"
            )
        return self


class Suite(Base):
    """lm-eval tasks asked together of every model; `heldout` stands for all held-out tasks."""

    tasks: list[str] = ["heldout"]
    include: str | None = None
    shots: Count | None = None
    limit: Count | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _is_there(self):
        if not self.tasks:
            raise ValueError("tasks: names none; leave the suite out instead")
        self.include_digest  # noqa: B018 - a folder that is not there is refused here, by key
        return self

    @cached_property
    def include_digest(self) -> str | None:
        return sources.folder_digest(Path(self.include)) if self.include else None

    @property
    def names(self) -> tuple[str, ...]:
        listed = [HELD_OUT_TASKS if task == "heldout" else (task,) for task in self.tasks]
        return tuple(dict.fromkeys(name for names in listed for name in names))


class Evaluate(Base):
    suites: dict[Name, Suite] = {"heldout": Suite()}
    items: Count = Field(120, gt=0)
    prompts: list[str] = ["import", "def main(", "class"]
    prompt_tokens: Count = 40


class Probe(Base):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    phases: list[Literal["prefill", "decode", "train"]] = ["prefill", "decode", "train"]
    batches: list[Count] = [1, 4]
    contexts: list[Count] = [64, 256]
    repeats: Count = Field(5, ge=1)
    seconds: Real = Field(0.3, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"

    @field_validator("batches", "contexts")
    @classmethod
    def _positive(cls, values):
        if not values or min(values) < 1:
            raise ValueError(f"needs counts of 1 and above, not {values}")
        return values


class HoldOut(Base):
    """Trainings whose loss is forecast, in writing, before they may start: of these models (by
    name) and at these budgets. Left empty, nothing is forecast."""

    models: list[Name] = []
    budgets: list[Count] = []


class Fit(Base):
    """Laws to fit; left out, those that the study has enough runs for."""

    laws: list[str] | None = None

    @field_validator("laws")
    @classmethod
    def _known(cls, values):
        for law in values or []:
            if law not in LAW_NEEDS:
                raise ValueError(unknown(law, list(LAW_NEEDS), "law"))
        return values
