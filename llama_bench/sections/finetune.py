"""`finetune:` what models are fine-tuned on, how, and how much of it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from llama_bench import sources
from llama_bench.fields import Base, Count, Name, Positive, Real, Share, number, unknown
from llama_bench.sections.data import Source
from llama_bench.specs import Corpus
from llama_bench.templates import Template
from llama_bench.text_files import first_row, kind, parquet_columns

OWN = ("part", "docstring")  # written from held-out documents by measure/labelled


def _fraction(value):
    """`1/16`, 0.0625 or 1. Raises ValueError."""
    above, slash, below = str(value).partition("/")
    try:
        found = number(above) / number(below) if slash else number(value)
    except (ValueError, ZeroDivisionError):
        found = 0.0
    if not 0 < found <= 1:
        raise ValueError(f"{value!r} is not above 0 and at most 1; write for example 1/16 or 0.25")
    return found


Fraction = Annotated[float, BeforeValidator(_fraction, json_schema_input_type=float | str)]


class Lora(Base):
    """Low-rank adaptation: products of two thin matrices, added to layers."""

    rank: Count = Field(8, gt=0)
    """Of the products."""
    alpha: Positive = 16
    """They are scaled by alpha / rank."""
    targets: list[str] = [
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    ]
    """The layers that they are added to."""


class FineTuning(Base):
    """What some models are fine-tuned on, how, and from how much of it."""

    examples: Source
    """part (which part of the corpus a text is from), docstring (what a function does; both from
    held-out documents), paths of .jsonl or .parquet files, or a Hub dataset."""
    prompt: str | None = None
    """How a row is asked, with columns in braces."""
    answer: str | None = None
    """What is right, with columns in braces."""
    choices: bool | None = None
    """true where answers are labels, false where they are written."""
    document: str | None = None
    """The column that says what document a row is from, of which no two parts share one."""
    items: Count = Field(1200, gt=0)
    """Examples at most."""
    validation: Share = Field(0.15, gt=0)
    """Share of the documents that training is watched on."""
    test: Share = Field(0.25, gt=0)
    """Share of the documents that scores are of."""
    models: list[Name] = []
    """By name; all, if empty."""
    budgets: list[Real] = []
    """Of trained models; left out, the largest."""
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [1]
    """Of the labelled data, a fine-tuning each."""
    fractions_of: list[Name] = []
    """Models that learn from every fraction; the others from all data. Empty: all models."""
    methods: Annotated[list[Literal["full", "lora"]], Field(min_length=1)] = ["full"]
    """All weights, or low-rank products."""
    lora: Lora = Lora()
    """How low-rank products are made."""
    from_zero: bool = False
    """The same from random weights too."""
    seeds: Annotated[list[Count], Field(min_length=1)] = [0]
    """Of the order of examples; a fine-tuning each."""
    steps: Count = Field(160, gt=0)
    """At most."""
    validate_every: Count = Field(20, gt=0)
    """Steps."""
    patience: Count = Field(3, gt=0)
    """Validations without a better one, after which it ends."""
    batch: Count = Field(8, gt=0)
    """Examples a step."""
    context: Count | None = Field(None, gt=1)
    """Tokens of a window; left out, train.context."""
    learning_rate: Positive | None = None
    """Peak rate; left out, a rule of size (2e-5 where it is on the Hub, or no Llama)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What products are computed in."""
    chat_template: bool = False
    """Ask in the form of the model's chat template."""
    suites: list[Name] | None = None
    """Of evaluate, which the outcome is asked besides its own test; left out, all."""

    @field_validator("examples")
    @classmethod
    def _known(cls, given):
        is_path = isinstance(given, str) and ("." in given or "/" in given)
        if isinstance(given, str) and not is_path and given not in OWN:
            raise ValueError(unknown(given, list(OWN), "examples") + ", or the path of a file")
        return given

    @field_validator("fractions", "methods", "seeds")
    @classmethod
    def _distinct(cls, values):
        if len(set(values)) < len(values):
            raise ValueError(f"names one twice: {values}")
        return values

    @model_validator(mode="after")
    def _whole(self):
        given = (self.prompt, self.answer, self.choices, self.document)
        if self.source and given != (None,) * 4:
            raise ValueError(
                "prompt, answer, choices, document: are of rows of your own; "
                f"{self.source} has its own"
            )
        if not self.source:
            self._check_own()
        if "lora" in self.model_fields_set and "lora" not in self.methods:
            raise ValueError("lora: is used by methods: [lora] alone; add it, or leave lora out")
        if self.validation + self.test >= 1:
            raise ValueError("validation, test: leave no examples to train on")
        self.corpus  # noqa: B018 - a file that is not there is refused here, by key
        return self

    @property
    def source(self) -> str | None:
        """What is written from held-out documents; None for rows of one's own."""
        return self.examples if isinstance(self.examples, str) and self.examples in OWN else None

    @cached_property
    def corpus(self) -> Corpus | None:
        if self.source:
            return None
        try:
            found = sources.corpus(self.examples, None, None)
        except ValueError as error:
            raise ValueError(f"examples: {error}") from None
        if found.source not in ("files", "hub"):
            raise ValueError(f"examples: {self.examples} has no labels; one of: {', '.join(OWN)}")
        return found

    def _check_own(self) -> None:
        """Rows of one's own: how they are asked, and that their first has what is asked for."""
        ways = {
            "prompt": 'how a row is asked, such as "{text} ->"',
            "answer": 'what is right, such as " {label}"',
            "choices": "true where answers are labels, false where they are written",
        }
        for key, what in ways.items():
            if getattr(self, key) is None:
                raise ValueError(f"{key}: is missing; say {what}")
        named = {key: Template(getattr(self, key), key).columns for key in ("prompt", "answer")}
        named["document"] = [self.document] if self.document else []
        self.corpus  # noqa: B018 - a file that is not there is told first
        for path in self.files:
            if kind(path) not in (".jsonl", ".parquet"):
                raise ValueError(f"examples: {path} has no columns; give .jsonl or .parquet files")
            if kind(path) == ".jsonl":
                there = first_row(path)
            else:
                there = parquet_columns(path, [name for names in named.values() for name in names])
            for key, columns in named.items() if there is not None else ():
                for column in columns:
                    if column not in there:
                        told = unknown(column, list(there), "column")
                        raise ValueError(f"{key}: {told} ({path})")

    @property
    def files(self) -> tuple[Path, ...]:
        return () if self.source else tuple(sources.corpus_files(self.examples))
