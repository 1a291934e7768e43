"""Which documents train, and which are held out.

Documents that are nearly the same are one group, and a group is never split: nothing held out has
a near copy in training text. Groups come in the order of their lowest rank, which is random and
stays as it is when documents are added elsewhere; so a prefix of the training text is a random
part of it. Test, then validation, take groups from the front until they have their share. A group
that would overshoot it by half of itself trains, if the part is not half full yet, and otherwise
ends the part: short documents are not preferred.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llama_bench.fields import UserError


class Split(NamedTuple):
    """Numbers of documents, each part in the order in which it is written."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def in_order(rank: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(documents,) numbers of documents: groups by their lowest rank, then by rank within."""
    lowest = np.full(int(group.max(initial=-1)) + 1, 2**64 - 1, dtype=np.uint64)
    np.minimum.at(lowest, group, rank)
    return np.lexsort((rank, group, lowest[group]))


def edges(group: np.ndarray) -> np.ndarray:
    """Where groups begin in ordered documents, and at last their count."""
    return np.append(np.flatnonzero(np.diff(group, prepend=-1)), len(group))


def split(order: np.ndarray, group: np.ndarray, sizes: np.ndarray, share: float) -> Split:
    """Parts of about `share` of all bytes each for test and validation; the rest trains.

    `group` and `sizes` are per document, `order` is theirs. Raises UserError for fewer than three
    groups.
    """
    bounds = edges(group[order])
    if len(bounds) < 4:
        raise UserError(
            "data.corpus: its documents are all nearly the same; nothing can be held out"
        )
    group_bytes = np.add.reduceat(sizes[order], bounds[:-1]).tolist()
    part_of = _parts(group_bytes, share * sum(group_bytes))
    of_documents = np.repeat(part_of, np.diff(bounds))
    return Split(*(order[of_documents == part] for part in (TRAIN, VALIDATION, TEST)))


TRAIN, VALIDATION, TEST = 0, 1, 2


def _parts(sizes: list[int], wanted: float) -> np.ndarray:
    part_of = np.full(len(sizes), TRAIN, dtype=np.int8)
    at = 0
    for part in (TEST, VALIDATION):
        have = 0
        while at < len(sizes):
            if have + sizes[at] / 2 <= wanted:
                part_of[at] = part
                have += sizes[at]
            elif have >= wanted / 2:
                break
            at += 1
    for part in (TEST, VALIDATION):
        if part not in part_of:  # all that was left is too long: the shortest then
            trained = np.flatnonzero(part_of == TRAIN)
            spare = trained if len(trained) > 1 else np.flatnonzero(part_of != TRAIN)
            part_of[min(spare, key=lambda number: sizes[number])] = part
    if TRAIN not in part_of:
        fuller = max((TEST, VALIDATION), key=lambda part: (part_of == part).sum())
        part_of[np.flatnonzero(part_of == fuller)[-1]] = TRAIN
    return part_of
