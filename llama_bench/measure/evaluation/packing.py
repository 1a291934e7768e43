"""Token sequences that begin alike, laid out so that what they share is computed once.

A row is a tree of sequences, one branch behind the other: a token sees the tokens on its own path
and no others, and its position is its depth, so one pass of the row gives what a pass of each
sequence would. The choices of a question share their context so, the sentences of a pair their
first words. All that follows from a token stands behind it in one piece: token i sees token j
where j <= i < reach of j. The last token of a sequence foretells nothing that is asked and is not
passed.

Attention is computed over the whole row, seen or not, so a sequence joins a row only where that
costs less than a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

Scored = tuple[int, list[int], int]  # (request, ids of the whole text, where scoring starts)

# A row of short sequences is no longer than this, which bounds its mask; of longer ones, than four.
LONGEST = 512
OPEN = 2**31  # the reach of a token that all tokens behind it follow from


@dataclass
class Row:
    """`ids` to pass, how deep each stands and how far it is seen; for each request (by its number)
    the places whose logits foretell its scored tokens, and these."""

    ids: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    reach: list[int] = field(default_factory=list)
    scored: list[tuple[int, list[int], list[int]]] = field(default_factory=list)
    path: list[int] = field(default_factory=list)  # places of the last sequence's tokens

    def add(self, sequence: Scored, shared: int) -> None:
        """A sequence that begins with `shared` tokens of the last one."""
        number, whole, start = sequence
        first, own = len(self.ids), whole[shared:-1]
        for place in self.path[shared:]:
            self.reach[place] = first
        self.path = [*self.path[:shared], *range(first, first + len(own))]
        self.ids += own
        self.depth += range(shared, shared + len(own))
        self.reach += [OPEN] * len(own)
        self.scored.append((number, self.path[start - 1 :], whole[start:]))

    @property
    def branches(self) -> bool:
        return any(reach != OPEN for reach in self.reach)

    @property
    def outputs(self) -> int:
        """An upper bound of the places that foretell something."""
        return min(len(self.ids), sum(len(places) for _, places, _ in self.scored))


def rows(sequences: list[Scored], products: int | None) -> Iterator[Row]:
    """The sequences, sorted by their ids, as few tokens.

    `products` is how many keys' attention costs as much as the matrix products of one token; None
    where a model's attention is no plain one, and every sequence has a row of its own.
    """
    row, before = Row(), []
    for sequence in sequences:
        whole = sequence[1]
        shared = common(before[:-1], whole[:-1])
        if row.ids and not _joins(len(row.ids), len(whole) - 1, shared, products):
            yield row
            row, shared = Row(), 0
        row.add(sequence, shared)
        before = whole
    if row.ids:
        yield row


def _joins(length: int, own: int, shared: int, products: int | None) -> bool:
    """Whether a row of `length` tokens with a sequence of `own` more, but for the `shared` ones,
    costs less than the two apart."""
    whole = length + own - shared
    if products is None or shared == 0 or whole > max(LONGEST, 4 * own):
        return False
    apart = length * (products + length) + own * (products + own)
    return whole * (products + whole) < apart


def mask(batch: list[Row], stem: int, dtype: torch.dtype, device) -> torch.Tensor | None:
    """(rows, 1, length, stem + length): 0 where a token may look, the least number where not.

    All see the whole stem. None where plain causal attention is meant, rows being padded behind.
    """
    if not stem and not any(row.branches for row in batch):
        return None
    length = max(len(row.ids) for row in batch)
    reach = torch.tensor([row.reach + [0] * (length - len(row.ids)) for row in batch])
    place = torch.arange(length, device=device)
    hidden = place[:, None] >= reach.to(device)[:, None, :]
    hidden |= place[:, None] < place
    looks = torch.zeros((len(batch), 1, length, stem + length), dtype=dtype, device=device)
    looks[..., stem:].masked_fill_(hidden[:, None], torch.finfo(dtype).min)
    return looks


def common(one: list[int], other: list[int]) -> int:
    """How many ids the two begin with alike, by halves: whole slices compare fast."""
    alike, unknown = 0, min(len(one), len(other))
    while alike < unknown:
        middle = (alike + unknown + 1) // 2
        if one[alike:middle] == other[alike:middle]:
            alike = middle
        else:
            unknown = middle - 1
    return alike
