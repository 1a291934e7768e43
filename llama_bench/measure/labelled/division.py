"""Which part each example belongs to, and which examples are taken.

Documents that share a prompt, or are nearly the same, are kin and are never apart: an answer that
was trained on would be known, not found. Kin are dealt out in an order of hashes, label by label,
so that a label of as many kin as there are parts is in all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from llama_bench.measure.labelled.example import Example, rank


def kinship(examples: Iterable[Example], near: dict[str, str]) -> dict[str, str]:
    """Document -> the first of its kin by name. `near` says of a document which other it is
    nearly the same as."""
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
        join(example.document, near.get(example.document, example.document))
        join(example.document, asked.setdefault(example.prompt, example.document))
    return {name: top(name) for name in root}


def divide(
    examples: list[Example],
    kin: dict[str, str],
    shares: Sequence[float],
    seed: int,
    by_answer: bool,
) -> list[list[Example]]:
    """About these `shares` of the examples, the first to train on, each in random order; no kin
    are in two of them.

    With `by_answer` each label is dealt out by itself.
    """
    answers: dict[str, Counter] = defaultdict(Counter)
    for example in examples:
        answers[kin[example.document]][example.answer if by_answer else ""] += 1
    strata: dict[str, list[str]] = defaultdict(list)
    for name in sorted(answers, key=lambda name: rank(seed, name)):
        given = answers[name]
        strata[min(given, key=lambda answer: (-given[answer], answer))].append(name)
    part_of: dict[str, int] = {}
    for names in strata.values():
        sizes = [answers[name].total() for name in names]
        part_of |= dict(zip(names, _dealt(sizes, shares), strict=True))
    divided: list[list[Example]] = [[] for _ in shares]
    for example in sorted(examples, key=lambda each: rank(seed, *each)):
        divided[part_of[kin[example.document]]].append(example)
    return divided


def _dealt(sizes: list[int], shares: Sequence[float]) -> list[int]:
    """The part of each: the largest first, each to the part that lacks most.

    Where smaller ones suffice, none is more than a quarter or a half of a held-out part: it
    trains. No part stays empty if there are enough.
    """
    lacks = [share * sum(sizes) for share in shares]
    portion = min(lacks[1:])
    limits = (portion / 4, portion / 2, portion)
    enough = (m for m in limits if sum(size for size in sizes if size <= m) >= sum(lacks[1:]))
    limit = next(enough, max(sizes))
    order = sorted(range(len(sizes)), key=lambda number: -sizes[number])
    dealt = [0] * len(sizes)
    for number in order:
        if sizes[number] <= limit:
            dealt[number] = max(range(len(shares)), key=lacks.__getitem__)
        lacks[dealt[number]] -= sizes[number]
    for part in range(1, len(shares)):
        if part not in dealt and dealt.count(0) > 1:
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
