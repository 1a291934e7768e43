"""What many sequences begin with, passed once: the examples before every question of a task.

Keys and values of a beginning do not depend on what follows. Those of a stem are computed once and
stand before the rows of all sequences that begin with it, which are laid out from where it ends.
"""

from __future__ import annotations

from copy import copy
from inspect import signature
from itertools import pairwise

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from llama_bench.measure.evaluation.packing import LONGEST, Scored, common
from llama_bench.measure.model import parts


def is_plain(model: PreTrainedModel) -> bool:
    """Whether sequences can share a row or a stem.

    All layers attend to all that came before, by keys and values that can be kept: no sliding
    window, no recurrence. A token stands where the model is told, not where its row has it: no
    ALiBi, no factors that the longest position of a pass chooses.
    """
    return all(map(_is_plain, parts(model)))


def _is_plain(part: PreTrainedModel) -> bool:
    config = part.config.get_text_config()
    layers = DynamicCache(config=part.config).layers
    local = "local" in getattr(config, "attention_layers", ())  # GPT-Neo's; its cache is a full one
    told = "position_ids" in signature(part.forward).parameters and not getattr(
        config, "alibi", False
    )
    whole = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return whole and told and not local and not _has_longrope(config)


def needs_a_pass_each(model: PreTrainedModel) -> bool:
    """Whether what a sequence is given depends on those beside it: LongRoPE (Ding et al. 2024,
    arXiv 2402.13753) turns all by the factors for long ones where one is long."""
    return any(_has_longrope(part.config.get_text_config()) for part in parts(model))


def _has_longrope(config: PreTrainedConfig) -> bool:
    rope = getattr(config, "rope_parameters", None) or {}
    of_layers = [each for each in rope.values() if isinstance(each, dict)]
    return any(each.get("rope_type") == "longrope" for each in (rope, *of_layers))


def grouped(sequences: list[Scored]) -> list[tuple[int, list[Scored]]]:
    """(length of the stem, the sequences that begin with it), all sorted by their ids; those
    without one, whose stem has no tokens, come first.

    What is scored is never in a stem, nor is the token that foretells the first of it.
    """
    ordered = sorted(sequences, key=lambda each: each[1])
    links = [0]
    for (_, one, start), (_, other, begin) in pairwise(ordered):
        links.append(min(common(one, other), start - 1, begin - 1))
    _, chosen = _best(ordered, links, 0, len(ordered))
    groups, plain, done = [], [], 0
    for first, end, stem in chosen:
        plain += ordered[done:first]
        groups.append((stem, ordered[first:end]))
        done = end
    plain += ordered[done:]
    return ([(0, plain)] if plain else []) + groups


def _best(ordered: list[Scored], links: list[int], first: int, end: int) -> tuple[int, list]:
    """The stems of a run of sequences that save the most tokens, and how many they save: one for
    all, or those of its parts, which have a fourth more at least (so this ends soon)."""
    if end - first < 2:
        return 0, []
    stem = min(links[first + 1 : end])
    alike = [stem, *links[first + 1 : end]]
    own = sum(len(ids) - link for (_, ids, _), link in zip(ordered[first:end], alike, strict=True))
    saved, chosen, begun = 0, [], first
    if own > LONGEST:
        for place in range(first + 1, end + 1):
            if place == end or links[place] <= stem + stem // 4:
                more, inside = _best(ordered, links, begun, place)
                saved, chosen, begun = saved + more, chosen + inside, place
    here = stem * (own // LONGEST)  # once for every row but one
    if here > max(saved, LONGEST):  # a pass of its own is worth that
        return here, [(first, end, stem)]
    return saved, chosen


class Stem:
    """Keys and values of the first tokens of a group, to stand before any number of rows."""

    def __init__(self, model: PreTrainedModel, ids: list[int]):
        self.length, self.cache = len(ids), None
        if ids:
            self.cache = DynamicCache(config=model.config)
            given = torch.tensor([ids], device=model.device)
            model(input_ids=given, past_key_values=self.cache, use_cache=True, logits_to_keep=1)

    def before(self, rows: int) -> DynamicCache | None:
        """A cache that a pass of so many rows goes on from; what it adds is its own."""
        if self.cache is None:
            return None
        cache = copy(self.cache)
        cache.layers = [copy(layer) for layer in self.cache.layers]
        for layer in cache.layers:
            layer.keys = layer.keys.expand(rows, -1, -1, -1)
            layer.values = layer.values.expand(rows, -1, -1, -1)
        return cache
