"""Several token sequences in one: those that begin alike share their beginning.

The choices of one question differ in their last few tokens. Laid side by side after the context
they share, with a mask by which each sees the context and itself alone and with positions that
start anew for each, one pass gives exactly what one pass per choice would, at a fourth of the work
for four choices. The last token of a sequence foretells nothing that is asked and is not passed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

Scored = tuple[int, list[int], int]  # (request, ids of the whole text, where scoring starts)


@dataclass
class Pack:
    """Sequences that begin alike, as one: `shared` once, then what is each one's own.

    `ids` are the tokens to pass; token i sees token j <= i of its own `segment` and of segment 0.
    For each request (by its number) stand the places whose logits foretell its scored tokens.
    """

    ids: list[int]
    segment: list[int]
    position: list[int]
    scored: list[tuple[int, list[int], list[int]]]  # (request, places, tokens foretold)

    @property
    def end(self) -> int:
        """Places from the first scored one to the last: what the output head must see."""
        return len(self.ids) - min(places[0] for _, places, _ in self.scored)


def packed(question: list[Scored]) -> list[Pack]:
    """The sequences of one question as one pack where that saves work, else one for each."""
    shared = min(common(question[0][1], ids) for _, ids, _ in question)
    if len(question) > 1 and 2 * shared >= max(len(ids) for _, ids, _ in question):
        return [_pack(question, shared)]
    return [_pack([item], 0) for item in question]


def _pack(question: list[Scored], shared: int) -> Pack:
    pack = Pack(question[0][1][:shared], [0] * shared, list(range(shared)), [])
    for branch, (number, whole, start) in enumerate(question, 1):
        own = len(pack.ids)
        pack.ids += whole[shared:-1]
        pack.segment += [branch] * (len(pack.ids) - own)
        pack.position += range(shared, len(whole) - 1)
        before = range(start - 1, len(whole) - 1)
        places = [place if place < shared else place - shared + own for place in before]
        pack.scored.append((number, places, whole[start:]))
    return pack


def mask(segment: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """(batch, 1, length, length): 0 where a token may look, the least number where not.

    `segment` (batch, length) is -1 for padding, 0 for what all see, 1.. for the branches. None
    where plain causal attention is meant: no padding and no branches.
    """
    if bool((segment == segment[0, 0]).all()):
        return None
    looks, seen = segment[:, :, None], segment[:, None, :]
    allowed = (looks == seen) | ((seen == 0) & (looks > 0))
    before = torch.ones(allowed.shape[1:], dtype=torch.bool, device=segment.device).tril()
    allowed = (allowed & before)[:, None]
    least = torch.finfo(dtype).min
    return torch.zeros(allowed.shape, dtype=dtype, device=segment.device).masked_fill(
        ~allowed, least
    )


def common(one: list[int], other: list[int]) -> int:
    """How many ids the two begin with alike."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
