"""Training texts compared: what each holds, what cleaning took from it, what it did to the loss.

All texts of a study share the tokenizer and the held-out text of its own one, so that losses can be
subtracted: at the same size, training tokens and seeds, and only where both runs read all of their
text, or the same length of it over and over; the rest of a difference would be repetition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llama_bench.derive.words.laddertext import of_role, seed_noise

OWN = "the study’s own"
CELL = ["model", "budget"]
COMMON = (
    "All texts share the tokenizer and the held-out text of the study’s own one, which no step of "
    "cleaning touched: losses and bits per byte are of the same tokens and bytes throughout."
)


@dataclass(frozen=True)
class Text:
    """One training text: what it was made from (`corpus`, a digest), the steps of its cleaning and
    those that changed it (`acting`), its counts and its trainings, of which `limit` is the length
    that was read where that is less than there was. `name` is None for the study's own."""

    name: str | None
    corpus: str | None
    steps: tuple[str, ...]
    acting: tuple[str, ...]
    counts: dict[str, Any]
    runs: Any

    @property
    def shown(self) -> str:
        return self.name or OWN

    def of_corpus(self, other: Text) -> bool:
        """Whether both were made from the same documents."""
        return self.corpus is not None and self.corpus == other.corpus

    def same(self, other: Text) -> bool:
        """Whether both are the same tokens: what they were made from, all that changed it, and how
        many there are (`max_bytes`)."""
        as_many = self.counts.get("tokens") == other.counts.get("tokens")
        return self.of_corpus(other) and self.acting == other.acting and as_many

    @property
    def prepare(self) -> str:
        return self.runs["prepare"].iloc[0]


@dataclass(frozen=True)
class Gain:
    """Loss with one text less that with another, at one size and budget, nats per token; `error`
    is its standard error."""

    model: str
    params: float
    budget: float
    difference: float
    error: float | None


def texts(tables) -> list[Text]:
    """The texts that something was trained on, the study's own first."""
    prepared = tables["data"][tables["data"]["part"] == "train"].drop_duplicates("run")
    prepared = prepared.set_index("run")
    trainings = of_role(tables["trainings"], "ladder")
    found = []
    for _, runs in trainings.groupby("data", dropna=False, sort=False):
        prepare, name = runs[["prepare", "data"]].iloc[0]
        steps = tables["cleaning"][tables["cleaning"]["run"] == prepare].sort_values("position")
        counts = dict(prepared.loc[prepare]) if prepare in prepared.index else {}
        runs = runs.assign(limit=_limits(runs, counts.get("tokens")))
        own = runs["data"].isna().all()
        about = {"corpus": counts.get("corpus_sha256"), "counts": counts, "runs": runs}
        taken = ["documents_removed", "documents_changed", "bytes_removed"]
        acting = steps.loc[steps[taken].ne(0).any(axis=1), "step"]
        about |= {"steps": tuple(steps["step"]), "acting": tuple(acting)}
        found.append(Text(None if own else name, **about))
    return sorted(found, key=lambda text: text.name is not None)


def _limits(runs, tokens: float | None):
    """Null where a run read what it could: windows are whole, so the last tokens of a text wait."""
    able = runs["tokens"].clip(upper=tokens)
    return runs["unique_tokens"].where(runs["unique_tokens"] < able - 2 * runs["context"])


def gains(one: Text, other: Text, noise: tuple[float, int] | None) -> list[Gain]:
    """`one` less `other`, smallest size first; `noise` is that between seeds, where it is known."""
    keys = [*CELL, "seed", "limit"]
    columns = [*keys, "parameters_without_embeddings", "loss", "loss_standard_error"]
    sides = [text.runs.dropna(subset=["loss"])[columns] for text in (one, other)]
    both = sides[0].merge(sides[1], on=keys, suffixes=("", "_other"))
    found = [
        Gain(
            model=model,
            params=float(rows["parameters_without_embeddings"].iloc[0]),
            budget=float(budget),
            difference=float((rows["loss"] - rows["loss_other"]).mean()),
            error=_error(rows, noise),
        )
        for (model, budget), rows in both.groupby(CELL)
    ]
    return sorted(found, key=lambda gain: (gain.params, gain.budget))


def _error(rows, noise: tuple[float, int] | None) -> float | None:
    """Of the mean over seeds. That over held-out windows is an upper bound: both losses are of the
    same windows, and what these share cancels."""
    if noise is not None:
        return noise[0] * math.hypot(*rows[["loss", "loss_other"]].mean()) / math.sqrt(len(rows))
    errors = rows[["loss_standard_error", "loss_standard_error_other"]].mean()
    return None if errors.isna().any() else math.hypot(*errors)


def compared(tables) -> list[tuple[Text, list[Gain]]]:
    """Texts that hold something else than the study's own, with their loss less its loss."""
    known, noise = texts(tables), seed_noise(tables["ladder"])
    own = own_of(known)
    if own is None:
        return []
    others = [text for text in known if text.prepare != own.prepare and not text.same(own)]
    return [(text, gains(text, own, noise)) for text in others]


def own_of(known: list[Text]) -> Text | None:
    """The study's own, where something was trained on it."""
    return known[0] if known and known[0].name is None else None


def steps(tables) -> list[tuple[str, Text, Text, list[Gain]]]:
    """Each step of cleaning that two texts of one corpus differ by alone: (step, with, without,
    the loss with it less that without). Of texts that differ in length alone the fullest counts."""
    noise = seed_noise(tables["ladder"])
    known: dict[str, Text] = {}
    for text in sorted(texts(tables), key=lambda text: text.runs["limit"].notna().mean()):
        known.setdefault(text.prepare, text)
    pairs = [(_step(a, b), a, b) for a in known.values() for b in known.values()]
    found = [(step, *pair, gains(*pair, noise)) for step, *pair in pairs if step]
    return [entry for entry in found if entry[3]]


def _step(more: Text, less: Text) -> str | None:
    """The one step that `more` has and `less` has not, the others being the same in order."""
    extra = [step for step in more.steps if step not in less.steps]
    rest = tuple(step for step in more.steps if step not in extra)
    alike = more.of_corpus(less) and rest == less.steps
    return extra[0] if len(extra) == 1 and alike else None


def repetition(tables):
    """The runs on the study's own text at the largest budget whose sizes were trained on several
    lengths of it; none where no size was. `level` is the budget: of compute, else of tokens."""
    runs = tables["repetition"].drop_duplicates("run")
    runs = runs.assign(level=runs["budget"].fillna(runs["token_budget"]))
    lengths = runs.groupby(["level", "model"])["unique_tokens"].nunique()
    lengths = lengths[lengths > 1].groupby("level").sum()
    if not len(lengths):
        return runs.iloc[:0]
    runs = runs[runs["level"] == lengths[lengths == lengths.max()].index.max()]
    return runs[runs.groupby("model")["unique_tokens"].transform("nunique") > 1]
