"""Whether models can be fused at all, asked before anything is computed.

A mean of weights that mean different things is a file like any other; nothing would complain. So
every difference is an end with a name: the members' and the tensor's.
"""

from __future__ import annotations

from llama_bench import sources
from llama_bench.measure import lineage
from llama_bench.measure.fusing import averaging, weight_files
from llama_bench.measure.fusing.averaging import DTYPES
from llama_bench.measure.fusing.members import Member
from llama_bench.records import Refusal

# keys of a config that do not change what the weights compute
_WITHOUT_MEANING = {
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "max_position_embeddings",
    "pad_token_id",
    "transformers_version",
    "use_cache",
}


def one_vocabulary(members: list[Member]) -> None:
    """Raises Refusal where ids do not mean the same text in all."""
    first = members[0]
    for other in members[1:]:
        sizes = [each.config.get_text_config().vocab_size for each in (first, other)]
        if sizes[0] != sizes[1]:
            _refuse(first, other, f"their vocabularies have {sizes[0]} and {sizes[1]} ids")
        if not sources.same_tokenizer(first.folder, other.folder):
            _refuse(first, other, "their tokenizers differ (tokenizer.json)")


def one_shape(members: list[Member], why: str = "") -> None:
    """Raises Refusal where a tensor of one is not to be added to that of another; `why` that is
    asked for, and what to do about it."""
    try:
        _one_shape(members)
    except Refusal as refusal:
        if not why:
            raise
        raise Refusal(refusal.status, f"{refusal} ({why})") from None


def _one_shape(members: list[Member]) -> None:
    for each in members:
        if each.is_ensemble:
            reason = "is an ensemble of outputs, whose members' weights are no one model's"
            raise Refusal("refused", f"{each.name} {reason}")
    first = members[0]
    for other in members[1:]:
        tied = [each.config.get_text_config().tie_word_embeddings for each in (first, other)]
        if tied[0] != tied[1]:
            words = ["tied" if is_tied else "untied" for is_tied in tied]
            _refuse(first, other, f"lm_head.weight: {words[0]} embeddings and {words[1]} ones")
    tables = [weight_files.stored(each.folder) for each in members]
    for other, table in zip(members[1:], tables[1:], strict=True):
        _same_tensors(first, other, tables[0], table)
        _same_meaning(first, other)
    for name, tensor in tables[0].items():
        if tensor.dtype not in DTYPES and not averaging.equal([table[name] for table in tables]):
            known = ", ".join(DTYPES)
            reason = f"{name} differs, and of its type, {tensor.dtype}, no mean is taken"
            names = ", ".join(each.name for each in members)
            raise Refusal("refused", f"{names}: {reason} (known: {known})")


def _same_tensors(first: Member, other: Member, own: dict, its: dict) -> None:
    for name in own:
        if name not in its:
            _refuse(first, other, f"the second lacks {name}")
        for what in ("shape", "dtype"):
            pair = getattr(own[name], what), getattr(its[name], what)
            if pair[0] != pair[1]:
                _refuse(first, other, f"{name} has the {what} {pair[0]} and {pair[1]}")
    additional = sorted(set(its) - set(own))
    if additional:
        _refuse(first, other, f"the second has {additional[0]}, which the first lacks")


def _same_meaning(first: Member, other: Member) -> None:
    own, its = first.config.to_dict(), other.config.to_dict()
    for key in sorted((own.keys() | its.keys()) - _WITHOUT_MEANING):
        if own.get(key) != its.get(key):
            _refuse(first, other, f"config.json: {key} is {own.get(key)} and {its.get(key)}")


def one_family(members: list[Member], allowed: bool) -> bool:
    """Whether all have a common ancestor. Raises Refusal where they do not, unless `allowed`."""
    related = bool(lineage.shared([each.ancestors for each in members]))
    if not related and not allowed:
        names = ", ".join(each.name for each in members)
        raise Refusal(
            "refused",
            f"{names} have no common ancestor, and a mean of strangers' weights is usually no "
            "model; fuse their outputs, or give the fusion allow_unrelated: true to see it",
        )
    return related


def _refuse(first: Member, other: Member, why: str) -> None:
    raise Refusal("refused", f"{first.name} and {other.name} cannot be fused: {why}")
