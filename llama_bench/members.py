"""Members of fusions: whether what a configuration names can become one model.

What their sections, and the config.json and tokenizer.json of local folders, show to be impossible
is refused here, by key, before anything is trained. The rest is seen by the job alone: tensors, and
what lies on the Hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_bench import references, sources
from llama_bench.fields import unknown
from llama_bench.references import Known
from llama_bench.sections.finetune import FineTuning
from llama_bench.sections.fuse import Fusion
from llama_bench.sections.models import base_of
from llama_bench.shape import Shape

# keys of a config.json on which the shapes of weights depend; GPT-2 has names of its own
_OF_SHAPE = (
    "model_type",
    *("num_hidden_layers", "hidden_size", "intermediate_size", "tie_word_embeddings"),
    *("num_attention_heads", "num_key_value_heads", "head_dim"),
    *("n_layer", "n_embd", "n_inner", "n_head"),
)
_STRANGERS = (
    "have no common ancestor, and the average of unrelated weights is no model; give "
    "allow_unrelated: true to see it, or methods: [mixture]"
)


def check(name: str, asked: Fusion, tunings: dict[str, FineTuning], known: Known) -> None:
    """Raises ValueError."""
    where = f"fuse.{name}"
    references.suites(f"{where}.suites", asked.suites, known.suites)
    if isinstance(asked.members, list):
        references.models(f"{where}.members", asked.members, known.models)
        _named(where, asked, known)
        return
    of = asked.members
    possible = known.models if of.finetune else list(known.trained)
    references.models(f"{where}.models", asked.models, possible)
    if not possible:
        raise ValueError(f"{where}.members: are made from trained models; models.train has none")
    references.budgets(f"{where}.budget", [asked.budget] if asked.budget else [], known.budgets)
    if of.cooldowns and not known.wsd:
        raise ValueError(f"{where}.members: cooldowns need train.schedule: wsd")
    if of.seeds and asked.of_weights and not asked.allow_unrelated:
        raise ValueError(f"{where}: seeds {_STRANGERS}")
    for tuning in of.finetune or ():
        if tuning not in tunings:
            raise ValueError(f"{where}.members: {unknown(tuning, list(tunings), 'fine-tuning')}")
    _counted(where, asked, of.cooldowns or of.seeds or _tuned(where, asked, tunings))


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
    _one_vocabulary(where, asked.members, known)
    _one_shape(where, asked, known)
    families = [_family(name, known) for name in asked.members]
    if asked.of_weights and not set.intersection(*families) and not asked.allow_unrelated:
        told = f"{', '.join(asked.members)} {_STRANGERS}"
        if any(name in known.pretrained for name in asked.members):
            told += (
                ". What they are fine-tuned from elsewhere is told by base, in models.pretrained"
            )
        raise ValueError(f"{where}.members: {told}")


def _family(name: str, known: Known) -> set[tuple[str, str]]:
    """The model itself and, of one trained elsewhere, what it is said to be fine-tuned from."""
    if name in known.trained:
        return {("trained", name)}
    loaded = known.pretrained[name]
    origins = loaded.reference.id, base_of(loaded, known.pretrained.values())
    return {("pretrained", origin) for origin in origins if origin}


def _one_vocabulary(where: str, members: list[str], known: Known) -> None:
    """Models trained here share a tokenizer, of `data.vocab_size` ids if it is not made yet."""
    loaded = {name: known.pretrained[name].folder for name in members if name in known.pretrained}
    folders = [folder for folder in loaded.values() if folder]
    for folder in folders:
        if not (folder / "tokenizer.json").is_file():
            raise ValueError(f"{where}.members: {folder} has no tokenizer.json; leave it out")
    ids = {name: known.ids for name in members if name in known.trained}
    first, *others = [*([known.tokenizer] if ids and known.tokenizer else []), *folders] or [None]
    for folder in others:
        if not sources.same_tokenizer(first, folder):
            raise ValueError(
                f"{where}.members: {first} and {folder} have different tokenizers "
                "(tokenizer.json), so their ids mean different text; fuse models that share one"
            )
    ids |= {name: _config(folder).get("vocab_size") for name, folder in loaded.items() if folder}
    if len({*ids.values()} - {None}) > 1:
        counts = ", ".join(f"{name}: {count}" for name, count in ids.items() if count)
        raise ValueError(
            f"{where}.members: have vocabularies of different sizes ({counts}), so their ids mean "
            "different text; fuse models that share a tokenizer (data.tokenizer gives those "
            "trained here that of another)"
        )


def _one_shape(where: str, asked: Fusion, known: Known) -> None:
    """Means of weights need it; mergekit's own methods may not, but a line between two members."""
    averaging = [method for method in asked.of_weights if method != "mergekit"]
    lined = asked.line and asked.of_weights
    members = asked.members if averaging else asked.members[:2] if lined else []
    first, *others = members or [None]
    for other in others:
        own, its = (_of_shape(name, known) for name in (first, other))
        for key in _OF_SHAPE:
            if None not in (own.get(key), its.get(key)) and own[key] != its[key]:
                differ = f"{first} and {other} differ ({key}: {own[key]} and {its[key]})"
                raise ValueError(
                    f"{where}.methods: {', '.join(averaging)} average weights of one shape, and "
                    f"{differ}; use mixture or product"
                    if averaging
                    else f"{where}.line: lies between members of one shape, and {differ}; give 0"
                )


def _of_shape(name: str, known: Known) -> dict[str, Any]:
    """As a config.json says it, as far as it is known; of a model on the Hub nothing is."""
    if name in known.trained:
        return _as_config(known.trained[name])
    folder = known.pretrained[name].folder
    return _config(folder) if folder else {}


def _as_config(shape: Shape) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn_width,
        "tie_word_embeddings": shape.tied_embeddings,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
    }


def _config(folder: Path) -> dict[str, Any]:
    """A model's config.json, of one that reads more than text the part about text; empty where it
    cannot be read, which is told when the model is loaded."""
    try:
        content = json.loads((folder / "config.json").read_bytes())
        return dict(content.get("text_config") or content)
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
