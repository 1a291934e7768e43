"""What `prepare` is asked: which documents become tokens, and how."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from llama_bench.fields import Base, Count, Share
from llama_bench.specs.identity import Spec
from llama_bench.specs.pretrained import Pretrained


class Corpus(Base):
    """Where documents come from. `version` pins what the name alone does not.

    For `python-stdlib` the version is the interpreter's, for `python-packages` a digest of what
    is installed; for `files` the files' own content digests stand in `files`, in order (their
    paths are the run's inputs and no part of its identity); for `hub` a dataset's `repo` at its
    `revision`, with the `subset` and `split` that are read.
    """

    source: Literal["python-stdlib", "python-packages", "files", "hub"]
    version: str | None = None
    files: tuple[str, ...] | None = None
    text_key: str | None = None
    max_bytes: Count | None = None
    repo: str | None = None
    revision: str | None = None
    subset: str | None = None
    split: str | None = None


CleaningStep = Literal[
    "unicode", "whitespace", "exact_duplicates", "near_duplicates", "length", "characters"
]


class PrepareSpec(Spec):
    """From documents to tokens: split by document, clean, train a tokenizer, pack.

    Another training text for the held-out text and tokenizer of a run that exists names that run
    in `held_out_of`, and leaves `vocab_size`, `held_out` and `tokenizer` to it. `clean` are the
    steps that the training text goes through, in order; held-out text goes through none.
    """

    verb: ClassVar[str] = "prepare"
    recipe: int = 2
    corpus: Corpus
    vocab_size: Count | None = Field(None, ge=300, le=1_000_000)
    held_out: Share | None = Field(None, gt=0, le=0.4)
    seed: Count = 0
    tokenizer: Pretrained | None = None
    clean: tuple[CleaningStep, ...] | None = None
    held_out_of: str | None = None

    @model_validator(mode="after")
    def _own_or_shared(self):
        own = (self.vocab_size, self.held_out)
        if self.held_out_of is None and None in own:
            raise ValueError("give vocab_size and held_out, or held_out_of")
        if self.held_out_of is not None and (own != (None, None) or self.tokenizer):
            raise ValueError("held_out_of: brings its own vocab_size, held_out and tokenizer")
        return self

    @property
    def slug(self) -> str:
        of = self.corpus.repo.split("/")[-1] if self.corpus.repo else self.corpus.source
        return f"{of}-v{self.vocab_size}" if self.held_out_of is None else f"{of}-variant"
