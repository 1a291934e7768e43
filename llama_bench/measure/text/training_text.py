"""Training text: read in its order, cleaned, made into one file of tokens.

The documents are cut into stretches of whole groups (documents that are nearly the same), each
cleaned and encoded by itself, so that stretches can go to several processes and only a few are
held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llama_bench.measure.text.cleaning import COUNTS, cleaned
from llama_bench.measure.text.held_out import TOKENIZER
from llama_bench.measure.text.shuffle import Texts
from llama_bench.measure.text.split import edges
from llama_bench.measure.text.tokenizer import Encoder
from llama_bench.measure.text.workers import in_order

FILE = "train.bin"
STRETCH_BYTES = 2_000_000


@dataclass(frozen=True)
class Training:
    """Documents to train on: places in a shuffle's folder and groups, in order, and what is done
    to them."""

    shuffled: Path
    places: np.ndarray
    group: np.ndarray
    steps: tuple[str, ...]

    @property
    def no_counts(self) -> np.ndarray:
        return np.zeros((len(self.steps), len(COUNTS)), dtype=np.int64)


class Stretch(NamedTuple):
    places: np.ndarray
    group_sizes: list[int]


class Packed(NamedTuple):
    """What became of some training text; `counts` (steps, COUNTS) is that of the cleaning."""

    documents: int
    bytes: int
    tokens: int
    counts: np.ndarray


def write(training: Training, folder: Path, workers: int, progress) -> Packed:
    """Write the token file with the tokenizer of `folder`; returns the counts of all of it."""
    read, total = 0, int(training.places["bytes"].sum())
    sums = Packed(0, 0, 0, training.no_counts)
    given = (training.steps, training.shuffled, folder / TOKENIZER)
    with open(folder / FILE, "wb") as file:
        for ids, seen, packed in in_order(_pack, _stretches(training), workers, _begin, given):
            file.write(ids)
            sums = Packed(*(one + more for one, more in zip(sums, packed, strict=True)))
            read += seen
            progress(read, total, "of the training text encoded")
    return sums


def texts(training: Training) -> Iterator[bytes]:
    """The cleaned texts, in order, as far as they are asked for."""
    source = Texts(training.shuffled)
    for stretch in _stretches(training):
        for left in _cleaned(training.steps, source, stretch, training.no_counts):
            yield from left


def _stretches(training: Training) -> Iterator[Stretch]:
    bounds = edges(training.group)
    ends = np.append(0, np.cumsum(training.places["bytes"], dtype=np.int64))[bounds]
    first = 0
    while first < len(bounds) - 1:
        fitting = int(np.searchsorted(ends, ends[first] + STRETCH_BYTES, side="right")) - 1
        last = max(first + 1, fitting)
        sizes = np.diff(bounds[first : last + 1]).tolist()
        yield Stretch(training.places[bounds[first] : bounds[last]].copy(), sizes)
        first = last


def _cleaned(
    steps: tuple[str, ...], source: Texts, stretch: Stretch, counts: np.ndarray
) -> Iterator[list[bytes]]:
    """What is left of each group; `counts` is added to."""
    read = source.read(stretch.places)
    for size in stretch.group_sizes:
        yield cleaned(steps, [next(read)[1] for _ in range(size)], counts)


class _Worker(NamedTuple):
    steps: tuple[str, ...]
    source: Texts
    encoder: Encoder


_worker: _Worker


def _begin(steps: tuple[str, ...], shuffled: Path, tokenizer: Path) -> None:
    global _worker
    _worker = _Worker(steps, Texts(shuffled), Encoder(tokenizer))


def _pack(stretch: Stretch) -> tuple[bytes, int, Packed]:
    """Ids, bytes that were read for them, and what they hold."""
    steps, source, encoder = _worker
    counts = np.zeros((len(steps), len(COUNTS)), dtype=np.int64)
    left = [text for group in _cleaned(steps, source, stretch, counts) for text in group]
    ids = encoder.pack(left)
    packed = Packed(len(left), sum(map(len, left)), len(ids) // encoder.dtype.itemsize, counts)
    return ids, int(stretch.places["bytes"].sum()), packed
