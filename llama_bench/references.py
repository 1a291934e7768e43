"""Names by which one section of a configuration means things of another: models, budgets, suites.

A name that means nothing is refused here, by its key, with what there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from llama_bench.fields import unknown
from llama_bench.sections.finetune import FineTuning
from llama_bench.sections.models import Loaded
from llama_bench.shape import Shape

CODE = {".py", ".jsonl", ".parquet"}  # kinds of files that Python code may be in


class Known(NamedTuple):
    """What a study has, by name; `trained` and `pretrained` in the order of the configuration."""

    trained: dict[str, Shape]
    pretrained: dict[str, Loaded]
    budgets: set[float]
    suites: list[str]
    context: int
    wsd: bool
    kinds: set[str]
    ids: int  # of what is trained
    tokenizer: Path | None  # trained elsewhere, where it lies here

    @property
    def models(self) -> list[str]:
        return [*self.trained, *self.pretrained]


def models(where: str, named: Iterable[str], known: list[str]) -> None:
    """Raises ValueError."""
    for name in named:
        if name not in known:
            raise ValueError(f"{where}: {unknown(name, known, 'model')}")


def budgets(where: str, named: Iterable[float], known: set[float]) -> None:
    """Raises ValueError."""
    for budget in named:
        if budget not in known:
            listed = [f"{each:g}" for each in sorted(known)]
            raise ValueError(f"{where}: {unknown(f'{budget:g}', listed, 'budget')}")


def suites(where: str, named: Iterable[str] | None, known: list[str]) -> None:
    """Raises ValueError."""
    for name in named or ():
        if name not in known:
            raise ValueError(f"{where}: {unknown(name, known, 'suite')}")


def finetune(name: str, asked: FineTuning, known: Known) -> None:
    """Raises ValueError."""
    where = f"finetune.{name}"
    models(f"{where}.models", asked.models, known.models)
    budgets(f"{where}.budgets", asked.budgets, known.budgets)
    suites(f"{where}.suites", asked.suites, known.suites)
    if name in known.suites:
        raise ValueError(f"{where}: a suite of evaluate has that name; give one of them another")
    chosen = asked.models or known.models
    models(f"{where}.fractions_of", asked.fractions_of, chosen)
    if asked.fractions_of and 1 not in asked.fractions:
        raise ValueError(f"{where}.fractions: the other models learn from all of it; add 1")
    if asked.context and asked.context > known.context and set(chosen) & set(known.trained):
        raise ValueError(
            f"{where}.context: {asked.context} tokens are more than models are trained for "
            f"(train.context = {known.context})"
        )
    if asked.from_zero and not set(chosen) & set(known.trained):
        raise ValueError(f"{where}.from_zero: names no model that is trained here; leave it out")
    if asked.source == "docstring" and known.kinds and not known.kinds & CODE:
        raise ValueError(
            f"{where}.examples: docstring asks about Python code, and data.corpus has "
            f"{', '.join(sorted(known.kinds))} files alone; give it .py files, or examples: part"
        )
    widths = {name: shape.width for name, shape in known.trained.items() if name in chosen}
    narrow = min(widths, key=widths.__getitem__, default=None)
    if "lora" in asked.methods and narrow and asked.lora.rank > widths[narrow]:
        raise ValueError(
            f"{where}.lora.rank: {asked.lora.rank} is above the width of {narrow}, "
            f"{widths[narrow]}; a product of that rank is a whole matrix: lower it, or leave "
            f"{narrow} out of models"
        )
    if asked.chat_template and set(chosen) & set(known.trained):
        raise ValueError(
            f"{where}.chat_template: models trained here have none; name pretrained ones in models"
        )
