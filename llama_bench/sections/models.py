"""`models:` the shapes to train and the models to load."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from llama_bench import sources
from llama_bench.fields import Base, Count, Name, Positive, short
from llama_bench.sections.origin import Origin
from llama_bench.shape import Shape, shape_of_size
from llama_bench.specs import Pretrained


class Trained(Base):
    """A model to train: a target `size`, or a shape."""

    name: Name | None = None
    """What tables and figures call it; left out, its size."""
    size: Count | None = None
    """Parameters without embeddings, to come close to; or give a shape."""
    layers: Count | None = Field(None, gt=0)
    """Of a shape."""
    width: Count | None = Field(None, gt=0)
    """Of the residual stream."""
    heads: Count | None = Field(None, gt=0)
    """Of attention."""
    kv_heads: Count | None = Field(None, gt=0)
    """Of keys and values; left out, as many as heads."""
    ffn_width: Count | None = Field(None, gt=0)
    """Of the feed-forward layers; left out, by rule."""
    tied_embeddings: bool = True
    """One table for what is read and what is written."""
    learning_rate: Positive | None = None
    """Its peak rate; left out, train.learning_rate or the rule's."""

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


class Loaded(Origin):
    """A model trained elsewhere: a local folder, or a Hub repository."""

    name: Name | None = None
    """What tables and figures call it; left out, the folder's or repository's name."""
    random_weights: bool = False
    """Take its shape alone, to be probed: no weights are needed or fetched."""
    trust_remote_code: bool = False
    """Let this repository run code of its own."""
    gpus: Count = Field(1, gt=0)
    """Over how many it is spread while it is evaluated."""
    base: str | None = Field(None, min_length=1)
    """What it was fine-tuned from, by any name that its relatives give too, or that of another
    model here: weights of relatives can be averaged."""

    @model_validator(mode="after")
    def _is_there(self):
        self.reference  # noqa: B018 - a folder without a model is refused here, by key
        return self

    @property
    def label(self) -> str:
        return self.name or Path(self.path or self.repo).name

    @cached_property
    def reference(self) -> Pretrained:
        trusted = self.trust_remote_code or None
        if self.folder is None:
            return Pretrained(repo=self.repo, revision=self.revision, trust_remote_code=trusted)
        digest = sources.shape_digest if self.random_weights else sources.model_digest
        return Pretrained(digest=digest(self.folder), trust_remote_code=trusted)


def base_of(model: Loaded, here: Iterable[Loaded]) -> str | None:
    """What `model` was fine-tuned from: where that is one of those `here`, what names its weights;
    a repository of which several revisions are here is none of them."""
    found = [each for each in here if model.base in (each.label, each.repo)]
    return found[0].reference.id if len(found) == 1 else model.base


class Models(Base):
    train: list[Trained] = []
    """To be trained here."""
    pretrained: list[Loaded] = []
    """To be loaded."""

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
        return self
