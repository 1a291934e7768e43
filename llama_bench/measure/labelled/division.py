"""Which part each example belongs to, and which examples are taken.

Documents that share a prompt, or are nearly the same, are kin and are never apart: an answer that
was trained on would be known, not found. Kin are dealt out in an order of hashes, label by label,
so that a label of as many kin as there are parts is in all of them.

Tasks that are made from the same documents share one deal, which follows from all of them: a model
that learned both is tested on documents that neither trained on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from llama_bench.measure.labelled.example import Example, rank


def kinship(examples: Iterable[Example]) -> dict[str, str]:
    """Document -> the first by name of those that it shares prompts with."""
    root: dict[str, str] = {}

    def top(name: str) -> str:
        root.setdefault(name, name)
        while root[name] != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    def join(one: str, other: str) -> None:
        first, second = sorted((top(one), top(other)))
        root[second] = first

    asked: dict[str, str] = {}
    for example in examples:
        join(example.document, asked.setdefault(example.prompt, example.document))
    return {name: top(name) for name in root}


def divide(
    tasks: Iterable[tuple[list[Example], bool]],
    kin: Mapping[str, str],
    shares: Sequence[float],
    seed: int,
) -> dict[str, int]:
    """Kin -> the number of their part: about these `shares` of the examples of each task, the
    first to train on.

    `tasks` are their examples, and whether their answers are labels: each label is dealt out by
    itself. A task deals out the kin that those before it left, and makes up for what they did.
    """
    part_of: dict[str, int] = {}
    for examples, labelled in tasks:
        answers: dict[str, Counter] = defaultdict(Counter)
        for example in examples:
            answers[kin[example.document]][example.answer if labelled else ""] += 1
        strata: dict[str, list[str]] = defaultdict(list)
        for name in sorted(answers, key=lambda name: rank(seed, name)):
            given = answers[name]
            strata[min(given, key=lambda answer: (-given[answer], answer))].append(name)
        for names in strata.values():
            has = [0] * len(shares)
            for name in names:
                if name in part_of:
                    has[part_of[name]] += answers[name].total()
            left = [name for name in names if name not in part_of]
            sizes = [answers[name].total() for name in left]
            part_of |= dict(zip(left, _dealt(sizes, shares, has), strict=True))
    return part_of


def _dealt(sizes: list[int], shares: Sequence[float], has: list[int]) -> list[int]:
    """The part of each: the largest first, each to the part that lacks most. `has` are the sizes
    that the parts have already.

    Where smaller ones suffice, none is more than a quarter or a half of a held-out part: it
    trains. No part stays empty if there are enough.
    """
    wanted = [share * (sum(sizes) + sum(has)) for share in shares]
    lacks = [size - held for size, held in zip(wanted, has, strict=True)]
    portion, held_out = min(wanted[1:]), sum(max(0.0, size) for size in lacks[1:])
    limits = (portion / 4, portion / 2, portion)
    enough = (m for m in limits if sum(size for size in sizes if size <= m) >= held_out)
    limit = next(enough, max(sizes, default=0))
    order = sorted(range(len(sizes)), key=lambda number: -sizes[number])
    dealt = [0] * len(sizes)
    for number in order:
        if sizes[number] <= limit:
            dealt[number] = max(range(len(shares)), key=lacks.__getitem__)
        lacks[dealt[number]] -= sizes[number]
    for part in range(1, len(shares)):
        trains = dealt.count(0) + (has[0] > 0)
        if part not in dealt and not has[part] and 0 in dealt and trains > 1:
            smallest = next(number for number in reversed(order) if dealt[number] == 0)
            dealt[smallest] = part
    return dealt


def in_turns(
    examples: list[Example], items: int, seed: int, most: Mapping[str, int]
) -> list[Example]:
    """At most `items` of them, in the order given, and of an answer at most as many as `most` says,
    if it does: documents take turns, so that a long one does not speak for all."""
    drawn = sorted(range(len(examples)), key=lambda number: rank(seed, "turn", *examples[number]))
    turns: Counter[str] = Counter()
    order = []
    for number in drawn:
        document = examples[number].document
        order.append((turns[document], rank(seed, document), number))
        turns[document] += 1
    taken, answers = [], Counter()
    for _, _, number in sorted(order):
        answer = examples[number].answer
        if len(taken) == items or answers[answer] == most.get(answer):
            continue
        answers[answer] += 1
        taken.append(number)
    return [examples[number] for number in sorted(taken)]
