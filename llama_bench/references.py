"""Names by which one section of a configuration means things of another: models, budgets, suites.

A name that means nothing is refused here, by its key, with what there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from llama_bench import sources
from llama_bench.fields import short, unknown
from llama_bench.sections.finetune import FineTuning
from llama_bench.sections.fuse import Fusion
from llama_bench.shape import Shape

CODE = {".py", ".jsonl", ".parquet"}  # kinds of files that Python code may be in


class Known(NamedTuple):
    """What a study has, by name; `trained` and `pretrained` in the order of the configuration."""

    trained: dict[str, Shape]
    pretrained: list[str]
    budgets: set[float]
    suites: list[str]
    context: int
    wsd: bool
    kinds: set[str]
    tokenizers: dict[str, Path] = {}  # folders of those of pretrained models, where they lie here

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


def _suites(where: str, named: Iterable[str] | None, known: list[str]) -> None:
    for name in named or ():
        if name not in known:
            raise ValueError(f"{where}: {unknown(name, known, 'suite')}")


def finetune(name: str, asked: FineTuning, known: Known) -> None:
    """Raises ValueError."""
    where = f"finetune.{name}"
    models(f"{where}.models", asked.models, known.models)
    budgets(f"{where}.budgets", asked.budgets, known.budgets)
    _suites(f"{where}.suites", asked.suites, known.suites)
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


def fuse(name: str, asked: Fusion, tunings: dict[str, FineTuning], known: Known) -> None:
    """Raises ValueError."""
    where = f"fuse.{name}"
    _suites(f"{where}.suites", asked.suites, known.suites)
    if isinstance(asked.members, list):
        models(f"{where}.members", asked.members, known.models)
        _named(where, asked, known)
        return
    of = asked.members
    possible = known.models if of.finetune else list(known.trained)
    models(f"{where}.models", asked.models, possible)
    if not possible:
        raise ValueError(f"{where}.members: are made from trained models; models.train has none")
    budgets(f"{where}.budget", [asked.budget] if asked.budget else [], known.budgets)
    if of.cooldowns and not known.wsd:
        raise ValueError(f"{where}.members: cooldowns need train.schedule: wsd")
    if of.seeds and asked.of_weights and not asked.allow_unrelated:
        raise ValueError(
            f"{where}: seeds have no common ancestor, and the average of unrelated weights is no "
            "model; give allow_unrelated: true to see it, or methods: [mixture]"
        )
    for tuning in of.finetune or ():
        if tuning not in tunings:
            raise ValueError(f"{where}.members: {unknown(tuning, list(tunings), 'fine-tuning')}")
    count = of.cooldowns or of.seeds or _tuned(where, asked, tunings)
    _counted(where, asked, count)


def _tuned(where: str, asked: Fusion, tunings: dict[str, FineTuning]) -> int:
    """How many members the fine-tunings of one base are."""
    named = [tunings[tuning] for tuning in asked.members.finetune]
    count = sum(len(each.methods) * len(each.seeds) for each in named)
    if count < 2:
        raise ValueError(
            f"{where}.members: {asked.members.finetune} make one model of a base; name another "
            "fine-tuning, or give it several seeds"
        )
    for tuning, each in zip(asked.members.finetune, named, strict=True):
        lacking = sorted(set(asked.models) - set(each.models)) if each.models else []
        if lacking or (each.models and not asked.models):
            raise ValueError(
                f"{where}.models: finetune.{tuning} is of {', '.join(each.models)} alone; name "
                "some of them"
            )
        budgets = each.budgets or [None]
        if asked.budget not in budgets:
            raise ValueError(
                f"{where}.budget: finetune.{tuning} begins with models of other budgets; give one "
                f"of finetune.{tuning}.budgets, or leave both out"
            )
    if any(1 not in each.fractions for each in named):
        raise ValueError(f"{where}.members: takes what all labelled data made; add 1 to fractions")
    return count


def _counted(where: str, asked: Fusion, members: int) -> None:
    if asked.weights and len(asked.weights) != members:
        raise ValueError(f"{where}.weights: {len(asked.weights)} for {members} members")
    if "slerp" in asked.methods and members != 2:
        raise ValueError(f"{where}.methods: slerp is of two members, not {members}")


def _named(where: str, asked: Fusion, known: Known) -> None:
    """Members that config.yaml names: nothing but their outputs can be fused if they differ."""
    _counted(where, asked, len(asked.members))
    _one_tokenizer(where, [known.tokenizers[n] for n in asked.members if n in known.tokenizers])
    shapes = {name: known.trained[name] for name in asked.members if name in known.trained}
    if asked.of_weights and len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name}: {short(shape.size)}" for name, shape in shapes.items())
        raise ValueError(
            f"{where}.methods: {', '.join(asked.of_weights)} average weights of one shape, and "
            f"these differ ({sizes}); use mixture or product"
        )


def _one_tokenizer(where: str, folders: list[Path]) -> None:
    """Of pretrained models; those trained here share the study's, which is not made yet."""
    for folder in folders[1:]:
        if not sources.same_tokenizer(folders[0], folder):
            raise ValueError(
                f"{where}.members: {folders[0]} and {folder} have different tokenizers "
                "(tokenizer.json), so their ids mean different text; fuse models that share one"
            )
