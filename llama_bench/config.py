"""config.yaml as types: what may be written there, its defaults, and what is refused.

What can be known to be wrong before any job starts is refused here, by key. The docstrings are
the help that an editor shows: workflow/config.schema.json is generated from these types.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from llama_bench import sources
from llama_bench.fields import Base, Count, Name, Real, Share, UserError, readable, short, unknown
from llama_bench.shape import Shape, shape_of_size
from llama_bench.specs import Corpus, Pretrained

PARTIAL = "-partial"  # results/studies/<study>-partial holds the report of what is there

# the tasks that `tasks` writes from held-out documents (measure/tasks.py writes each)
HELD_OUT_TASKS = (
    "heldout_bits_per_byte",
    "heldout_next_line",
    "heldout_valid_code",
    "heldout_identifier",
    "heldout_line_end",
)

# law -> fewest (points, sizes, budgets) it can be fitted to (derive/laws knows the formulas)
LAW_NEEDS = {"chinchilla": (6, 3, 3)}


class Data(Base):
    """`corpus` is python-stdlib, python-packages, or one or several paths of .txt, .jsonl,
    .parquet files; `max_bytes` takes a part of it, for trials."""

    corpus: str | list[str] = "python-stdlib"
    text_key: str = "text"
    vocab_size: Count = Field(2048, ge=300, le=1_000_000)
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

    budgets: list[Count] = [200_000, 400_000, 800_000]
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
        trunk = min(self.budgets) * (1 - self.decay_share)
        if self.warmup_tokens >= trunk:
            raise ValueError(
                f"warmup_tokens: {self.warmup_tokens} reach beyond the constant part of the "
                f"smallest budget ({trunk:.0f} tokens); shorten the warm-up or raise the budget"
            )
        if min(self.budgets) < self.batch * self.context:
            raise ValueError(
                f"budgets: {min(self.budgets)} tokens are less than one step "
                f"(batch x context = {self.batch * self.context})"
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
    prompts: list[str] = ["import ", "def main(", "class "]
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


class Config(Base):
    """A whole study. Every key has a default but `models`."""

    study: Name = "default"
    data: Data = Data()
    models: Models
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    probe: Probe = Probe()
    fit: Fit = Fit()

    @field_validator("study")
    @classmethod
    def _not_reserved(cls, name):
        if name.endswith(PARTIAL):
            raise ValueError(f"{name!r}: names ending in {PARTIAL!r} are kept for partial reports")
        return name

    @model_validator(mode="after")
    def _holds_together(self):
        self._check_corpus()
        self._check_tasks()
        self._check_laws()
        return self

    def _check_corpus(self):
        """A token is at least a byte, so a part of fewer bytes than a window holds none."""
        paths = sources.corpus_files(self.data.corpus)
        if not paths and self.data.max_bytes is None:
            return
        plain = [p for p in paths if p.suffix != ".parquet"]
        if len(plain) < len(paths):
            return
        size = min(sum(p.stat().st_size for p in plain) or 2**62, self.data.max_bytes or 2**62)
        if self.models.train and size * self.data.held_out <= self.train.context:
            raise ValueError(
                f"train.context: {self.train.context} tokens are longer than the held-out part of "
                f"the corpus ({size} bytes, {self.data.held_out:.0%} of them held out); "
                "shorten the context or give more text"
            )

    def _check_tasks(self):
        for suite, wanted in self.evaluate.suites.items():
            known = {*HELD_OUT_TASKS}
            if wanted.include:
                known |= sources.tasks_in(Path(wanted.include))
            strange = [name for name in wanted.names if name not in known]
            if any(not name.startswith("heldout_") for name in strange):
                known |= sources.lm_eval_tasks()
            for name in strange:
                if name not in known:
                    message = unknown(name, sorted(known), "task")
                    raise ValueError(f"evaluate.suites.{suite}.tasks: {message}")

    def _check_laws(self):
        have = (
            len(self.models.train) * len(self.train.budgets) * len(self.train.seeds),
            len({model.shape.size for model in self.models.train}),
            len(self.train.budgets),
        )
        for law in self.fit.laws or []:
            need = LAW_NEEDS[law]
            if any(h < n for h, n in zip(have, need, strict=True)):
                raise ValueError(
                    f"fit.laws: {law} needs at least {need[0]} runs of {need[1]} sizes and "
                    f"{need[2]} budgets; this study has {have[0]} of {have[1]} and {have[2]}. "
                    "Add sizes or budgets, or leave the law out"
                )

    @property
    def laws(self) -> list[str]:
        """What is asked for; or, where nothing is, what the study has enough runs for."""
        if self.fit.laws is not None:
            return self.fit.laws
        try:
            return self.model_copy(update={"fit": Fit(laws=["chinchilla"])})._allowed()
        except ValueError:
            return []

    def _allowed(self) -> list[str]:
        self._check_laws()
        return self.fit.laws


def check(given: dict[str, Any]) -> Config:
    """A parsed configuration as types. Raises UserError, a line for each wrong key."""
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        raise readable(error, "config") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's keys. Raises UserError: not there, no YAML, or a key that stands twice."""
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_unique_keys())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: should hold keys such as study:, data: and models:")
    return content


def _unique_keys():
    """YAML's own loader keeps the last of two equal keys in silence; a size would be lost."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def write_schema(path: Path) -> None:
    """The JSON schema of config.yaml, by which editors complete and check it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= Config.model_json_schema(mode="validation")
    path.write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n", encoding="utf-8")
