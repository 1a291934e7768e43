"""`data:` the text that the ladder is trained on, and other texts beside it.

The first text of a study gives the tokenizer and the held-out text; its `variants` (another
corpus, fewer unique tokens, other cleaning) share both, so that their losses can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from llama_bench import sources
from llama_bench.fields import Base, Count, Name, Real, Share, kinds
from llama_bench.sections.origin import Origin
from llama_bench.specs import CleaningStep, Corpus, Pretrained


class HubCorpus(Base):
    """A dataset on the Hub: `repo` at a `revision`, of it a `subset` (configuration) and a
    `split`; `repo` may be a local folder, which needs no revision."""

    repo: str
    """As owner/name; or a local folder."""
    revision: str | None = None
    """The commit to read."""
    subset: str | None = None
    """Its configuration, where it has several."""
    split: str = "train"
    """Which part of it."""

    @model_validator(mode="after")
    def _pinned(self):
        if self.revision is None and not Path(self.repo).expanduser().is_dir():
            raise ValueError("revision: is missing; a Hub dataset needs the one to read")
        return self


Source = kinds(text=str, list=list[str], keys=HubCorpus)


class Tokenizer(Origin):
    """A tokenizer trained elsewhere: a local folder `path`, or a Hub `repo` at a `revision`."""

    @model_validator(mode="after")
    def _is_there(self):
        self.reference  # noqa: B018 - a folder without a tokenizer is refused here, by key
        return self

    @cached_property
    def reference(self) -> Pretrained:
        if self.folder is None:
            return Pretrained(repo=self.repo, revision=self.revision)
        return Pretrained(digest=sources.tokenizer_digest(self.folder))


class Variant(Base):
    """Another training text for the same held-out text: what is left out is as in `data:`."""

    name: Name
    """What tables and figures call it."""
    corpus: Source | None = None
    """Another corpus, as in data.corpus."""
    text_key: str | None = None
    """As in data.text_key."""
    max_bytes: Count | None = Field(None, gt=0)
    """As in data.max_bytes."""
    clean: list[CleaningStep] | None = None
    """Other steps of cleaning; [] is none."""
    unique_tokens: Count | None = Field(None, gt=0)
    """Train on so many tokens, over and over."""
    models: list[Name] = []
    """Of the ladder's models, those trained on it; empty: all."""
    budgets: list[Real] = []
    """Of the ladder's budgets, those trained on it; empty: all."""


@dataclass(frozen=True)
class Text:
    """One training text, with nothing left open; the study's own has no name."""

    name: str | None
    corpus: Corpus
    files: tuple[Path, ...]
    clean: tuple[CleaningStep, ...]
    unique_tokens: int | None
    models: tuple[str, ...] = ()  # trained on it; empty: all
    budgets: tuple[float, ...] = ()

    def is_on(self, model: str, budget: float) -> bool:
        """Whether a model is trained on this text at a budget."""
        return (not self.models or model in self.models) and (
            not self.budgets or budget in self.budgets
        )

    @property
    def most_tokens(self) -> int | None:
        """No text has more tokens than bytes; None where the files do not tell their bytes."""
        plain = all(path.suffix in (".txt", ".md", ".py", ".jsonl") for path in self.files)
        size = sum(path.stat().st_size for path in self.files) if plain and self.files else None
        known = [bytes_ for bytes_ in (size, self.corpus.max_bytes) if bytes_]
        return min(known, default=None)


class Data(Base):
    """The text of a study, and other training texts beside it."""

    corpus: Source = "python-stdlib"
    """python-stdlib, python-packages, one or several paths of .txt, .md, .py, .jsonl or .parquet
    files (also compressed), or a Hub dataset."""
    text_key: str = "text"
    """The column of .jsonl, .parquet and Hub datasets that holds the text."""
    vocab_size: Count | None = Field(None, ge=300, le=1_000_000)
    """Ids of the tokenizer that is trained on the text (1024 if left out), or of one on the Hub."""
    tokenizer: Tokenizer | None = None
    """One trained elsewhere, instead of one of our own."""
    held_out: Share = Field(0.05, gt=0, le=0.4)
    """Share of the corpus's bytes that is held out, in whole documents: this much for validation
    and as much again for test (at 0.4 a fifth is left to train on)."""
    max_bytes: Count | None = Field(None, gt=0)
    """Take so much of the corpus alone, for trials."""
    unique_tokens: Count | None = Field(None, gt=0)
    """Train on so many tokens, over and over."""
    clean: list[CleaningStep] = []
    """Steps of cleaning, in this order."""
    variants: list[Variant] = []
    """Further training texts, judged on the same held-out text."""
    seed: Count = 0
    """Of the split into parts, and of what tasks and examples draw."""

    @field_validator("variants")
    @classmethod
    def _distinct(cls, variants):
        names = [variant.name for variant in variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two variants are called {name!r}; give one another name")
        return variants

    @model_validator(mode="after")
    def _is_there(self):
        self.texts  # noqa: B018 - what is no text is refused here, by key
        self.ids  # noqa: B018 - a tokenizer of another size is refused here, by key
        return self

    @cached_property
    def texts(self) -> list[Text]:
        """The training texts: this section's own, then its variants'."""
        return [self._text(None, self), *(self._text(v.name, v) for v in self.variants)]

    def _text(self, name: str | None, given: Data | Variant) -> Text:
        of = {
            key: getattr(self, key) if getattr(given, key) is None else getattr(given, key)
            for key in ("corpus", "text_key", "max_bytes", "clean")
        }
        where = f"variants.{name}." if name else ""
        if len(set(of["clean"])) < len(of["clean"]):
            raise ValueError(f"{where}clean: names a step twice")
        try:
            corpus = sources.corpus(of["corpus"], of["text_key"], of["max_bytes"])
            files = sources.corpus_files(of["corpus"])
        except ValueError as error:
            raise ValueError(f"{where}corpus: {error}") from None
        text = Text(name, corpus, tuple(files), tuple(of["clean"]), given.unique_tokens)
        if name:
            text = replace(text, models=tuple(given.models), budgets=tuple(given.budgets))
        most = text.most_tokens
        if most and given.unique_tokens and given.unique_tokens > most:
            raise ValueError(
                f"{where}unique_tokens: {given.unique_tokens} are more than the corpus can have "
                f"({most} bytes); ask for fewer, or give more text"
            )
        return text

    @cached_property
    def ids(self) -> int:
        """The vocabulary's size, by which shapes are counted before anything is prepared."""
        if self.tokenizer is None:
            return 1024 if self.vocab_size is None else self.vocab_size
        if self.tokenizer.folder is None:
            if self.vocab_size is None:
                raise ValueError(
                    "vocab_size: is missing; give the Hub tokenizer's number of ids, by which "
                    "sizes are counted before it is fetched"
                )
            return self.vocab_size
        found = sources.tokenizer_size(self.tokenizer.folder)
        if self.vocab_size not in (None, found):
            raise ValueError(
                f"vocab_size: {self.vocab_size} does not fit data.tokenizer, which has {found} "
                "ids; leave vocab_size out"
            )
        return found
