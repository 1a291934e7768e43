"""What a run is asked. The digest of a spec is the identity of its result.

Only what can move a number belongs here; how a run is carried out (workers, log interval,
folders, host) does not. A new field is optional and None, and None is left out of the digest, so
that it renames no finished run; code that changes an answer raises the spec's `recipe` instead.

Specs are chained: an evaluation names the training it is about by that training's id.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from llama_bench.fields import Base, Count, Real, Share, UserError, readable, short
from llama_bench.shape import Shape

__all__ = ["UserError", "readable"]


class Spec(Base):
    """The question a run answers. Two equal questions are one run, wherever they were asked."""

    verb: ClassVar[str]
    recipe: int = 1

    def canonical(self) -> str:
        """JSON with sorted keys and without None: equal specs give equal text."""
        content = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.verb}:{self.canonical()}".encode()).hexdigest()[:8]

    @property
    def slug(self) -> str:
        """A few words for people who list the folder; the digest alone is the identity."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        return f"{self.slug}-{self.digest}"

    @property
    def record_path(self) -> str:
        return f"results/runs/{self.verb}/{self.id}/record.json"

    @classmethod
    def parse(cls, text: str):
        """A spec from its JSON. Raises UserError, naming the key."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise readable(error, f"{cls.verb} spec") from None


class Pretrained(Base):
    """A model trained elsewhere: a Hub repository at a revision, or a folder known by content."""

    repo: str | None = None
    revision: str | None = None
    digest: str | None = None

    @property
    def slug(self) -> str:
        return self.repo.split("/")[-1] if self.repo else "local"


class Corpus(Base):
    """Where documents come from. `version` pins what the name alone does not.

    For `python-stdlib` the version is the interpreter's, for `python-packages` a digest of what
    is installed, for `files` the files' own content digests stand in `files`, in order; their
    paths are the run's inputs and no part of its identity.
    """

    source: Literal["python-stdlib", "python-packages", "files"]
    version: str | None = None
    files: tuple[str, ...] | None = None
    text_key: str | None = None
    max_bytes: Count | None = None


class PrepareSpec(Spec):
    """From documents to tokens: split by document, train a tokenizer, pack."""

    verb: ClassVar[str] = "prepare"
    corpus: Corpus
    vocab_size: Count = Field(ge=300, le=1_000_000)
    held_out: Share = Field(gt=0, le=0.4)
    seed: Count = 0

    @property
    def slug(self) -> str:
        return f"{self.corpus.source}-v{self.vocab_size}"


class TasksSpec(Spec):
    """Questions written from the held-out documents of one corpus."""

    verb: ClassVar[str] = "tasks"
    data: str
    items: Count = Field(gt=0)
    seed: Count = 0

    @property
    def slug(self) -> str:
        return f"held-out-{self.items}"


class TrainSpec(Spec):
    """One branch: a trunk at a constant rate, then a decay to zero within the last tokens.

    `tokens`, `warmup_tokens` and the decay's share count training tokens; `batch` is sequences
    of `context` tokens per step; rates are per step, as AdamW takes them.
    """

    verb: ClassVar[str] = "train"
    model: Shape
    data: str
    tokens: Count = Field(gt=0)
    context: Count = Field(gt=1)
    batch: Count = Field(gt=0)
    learning_rate: Real = Field(gt=0)
    warmup_tokens: Count
    decay_share: Share
    decay: Literal["linear", "sqrt"]
    weight_decay: Real = Field(ge=0)
    betas: tuple[Real, Real]
    clip: Real = Field(gt=0)
    seed: Count
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def slug(self) -> str:
        return f"{short(self.model.size)}-{short(self.tokens)}-s{self.seed}"

    @property
    def batch_tokens(self) -> int:
        return self.batch * self.context

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole branch: the budget, rounded to whole steps."""
        return max(1, round(self.tokens / self.batch_tokens))

    @property
    def trunk_steps(self) -> int:
        """Steps before the decay begins: where the branch leaves the trunk."""
        return self.steps - round(self.steps * self.decay_share)

    @property
    def trunk(self) -> str:
        """What all branches of one trunk share: the spec without the budget and the decay."""
        own = {"tokens", "decay", "decay_share"}
        content = self.model_dump(mode="json", exclude_none=True, exclude=own)
        return json.dumps(content, sort_keys=True)


class EvaluateSpec(Spec):
    """One model on one suite of lm-eval tasks, and its text after a few prompts.

    `train` is the id of the training whose checkpoint is asked, or `pretrained` says what model
    was loaded. `held_out` is the id of the tasks run that wrote the tasks whose names begin with
    `heldout_`; `include` are digests of folders of further task files (their paths are inputs).
    """

    verb: ClassVar[str] = "evaluate"
    train: str | None = None
    pretrained: Pretrained | None = None
    tasks: tuple[str, ...]
    held_out: str | None = None
    include: str | None = None
    shots: Count | None = None
    limit: Count | None = None
    prompts: tuple[str, ...] | None = None
    prompt_tokens: Count | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Count = 0

    @property
    def slug(self) -> str:
        return _model_slug(self.train, self.pretrained)


class ProbeSpec(Spec):
    """Speed and memory of one shape (with random weights) or of one loaded model, on one device.

    Weights do not change how long a product takes, so a shape is probed once for all budgets and
    seeds. `protocol` is the version of docs/protocol.md that was followed.
    """

    verb: ClassVar[str] = "probe"
    protocol: int = 1
    model: Shape | None = None
    vocab_size: Count | None = None
    pretrained: Pretrained | None = None
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16"] = "float32"
    phases: tuple[Literal["prefill", "decode", "train"], ...]
    batches: tuple[Annotated[Count, Field(gt=0)], ...]
    contexts: tuple[Annotated[Count, Field(gt=0)], ...]
    repeats: Count = Field(ge=1)
    seconds: Real = Field(ge=0)

    @model_validator(mode="after")
    def _one_model(self):
        if (self.model is None) == (self.pretrained is None):
            raise ValueError("give either model (a shape) or pretrained")
        if self.model and not self.vocab_size:
            raise ValueError("vocab_size: is missing; a shape has none of its own")
        return self

    @property
    def slug(self) -> str:
        return (
            f"{short(self.model.size)}-{self.device}"
            if self.model
            else (f"{_model_slug(None, self.pretrained)}-{self.device}")
        )


class ForecastPoint(Base):
    """One training that is held out: where on the law it lies."""

    run: str
    model: str
    params: Count
    tokens: Count
    flops: Real


class ForecastSpec(Spec):
    """The losses of `points`, foretold from the trainings `runs` by the law that the back-test
    chooses. It is derived, but written once, before the runs that it is about."""

    verb: ClassVar[str] = "forecast"
    law: str = "auto"
    runs: tuple[str, ...]
    points: tuple[ForecastPoint, ...]

    @property
    def slug(self) -> str:
        return "-".join(dict.fromkeys(point.model for point in self.points))[:60]


def _model_slug(train: str | None, pretrained: Pretrained | None) -> str:
    """The training's slug without its digest, or the pretrained model's."""
    return train.rpartition("-")[0] if train else pretrained.slug


SPECS: dict[str, type[Spec]] = {
    spec.verb: spec for spec in (PrepareSpec, TasksSpec, TrainSpec, EvaluateSpec, ProbeSpec)
}
