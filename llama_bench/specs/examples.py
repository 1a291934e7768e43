"""What `examples` is asked: which labelled examples a model is fine-tuned and tested on."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from llama_bench.fields import Count, Share
from llama_bench.specs.identity import Spec
from llama_bench.specs.prepare import Corpus


class ExamplesSpec(Spec):
    """Prompts with their answers, split into train, validation and test so that no document is in
    two parts, and the test as an lm-eval task that is called `task`.

    They are written from the held-out documents of the prepare run `data` (`source`: which part of
    the corpus a text is from, or what a function's docstring says), or read from a `corpus` whose
    columns fill the templates `prompt` and `answer`. With `choices` the answers are a few labels,
    to be told apart; else they are written. `document` is the column whose rows stay together;
    `validation` and `test` are shares of the examples; held-out documents are divided by them and
    `seed` alone, in the same way whatever is asked of them.
    """

    verb: ClassVar[str] = "examples"
    recipe: int = 3
    task: str
    data: str
    source: Literal["part", "docstring"] | None = None
    corpus: Corpus | None = None
    prompt: str | None = None
    answer: str | None = None
    document: str | None = None
    choices: bool | None = None
    items: Count = Field(gt=0)
    validation: Share = Field(gt=0)
    test: Share = Field(gt=0)
    seed: Count = 0

    @model_validator(mode="after")
    def _one_source(self):
        if (self.source is None) == (self.corpus is None):
            raise ValueError("give either source (from held-out documents) or corpus")
        if self.corpus and None in (self.prompt, self.answer, self.choices):
            raise ValueError("prompt, answer, choices: are missing; a corpus has none of its own")
        if self.validation + self.test >= 1:
            raise ValueError("validation, test: leave no examples to train on")
        return self

    @property
    def slug(self) -> str:
        return self.task
