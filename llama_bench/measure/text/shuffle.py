"""Documents on disk, to be read again in the order of their hashes.

A document's rank is a hash of the seed and its text: what its file is called or where in it the
document stands is no part of a corpus' identity, so neither can move the order. Texts are appended
to a bucket file by the first bits of their rank, while the index (some 300 bytes a document: rank,
place, digest, sketch) stays in memory. Reading in order then goes through one bucket after the
other, each of them a small part of the corpus, so that a corpus larger than memory is shuffled
without jumping all over the disk.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llama_bench.measure.text.corpus import Document
from llama_bench.measure.text.near_duplicates import PERMUTATIONS, sketches
from llama_bench.measure.text.workers import in_order

BUCKETS = 128
BATCH_BYTES = 1_000_000  # of text that is hashed and sketched at once

PLACE = np.dtype([("bucket", "u2"), ("offset", "u8"), ("name_bytes", "u4"), ("bytes", "u8")])
INDEX = np.dtype(
    [("rank", "u8"), ("place", PLACE), ("digest", "u1", 32), ("sketch", "u4", PERMUTATIONS)]
)


class Batch(NamedTuple):
    texts: list[bytes]
    seed: int
    last: int  # documents of a higher rank are not wanted


def examine(batch: Batch) -> np.ndarray:
    """(documents,) INDEX, all but the place; the sketch of unwanted documents is left out."""
    found = np.zeros(len(batch.texts), dtype=INDEX)
    digests = [hashlib.sha256(text).digest() for text in batch.texts]
    seed = f"{batch.seed}:".encode()
    ranks = b"".join(hashlib.sha256(seed + digest).digest()[:8] for digest in digests)
    found["digest"] = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)
    found["rank"] = np.frombuffer(ranks, dtype=">u8")
    wanted = np.flatnonzero(found["rank"] <= batch.last)
    found["sketch"][wanted] = sketches([batch.texts[number] for number in wanted.tolist()])
    return found


class Shuffle:
    """All documents of a corpus: their texts in `folder`, the rest in an index."""

    def __init__(self, folder: Path, seed: int, most_bytes: int | None = None):
        folder.mkdir()
        self.folder, self.seed, self.most = folder, seed, most_bytes
        self.last = 2**64 - 1
        self._ends = [0] * BUCKETS
        self._parts = [np.zeros(0, dtype=INDEX)]
        self._lowest: list[tuple[int, int]] = []  # a heap of (-rank, bytes): those kept so far
        self._kept = 0

    def fill(self, documents: Iterable[Document], workers: int) -> Iterator[int]:
        """Take in all documents; yields, after every batch, the bytes of text seen so far."""
        held: deque[list[tuple[bytes, bytes]]] = deque()
        seen = 0
        with ExitStack() as stack:
            files = [
                stack.enter_context(open(self.folder / str(number), "wb"))
                for number in range(BUCKETS)
            ]
            for found in in_order(examine, self._batches(documents, held), workers):
                batch = held.popleft()
                seen += sum(len(text) for _, text in batch)
                self._write(batch, found, files)
                yield seen

    def _batches(self, documents: Iterable[Document], held: deque) -> Iterator[Batch]:
        batch: list[tuple[bytes, bytes]] = []
        size = 0
        for name, text in documents:
            batch.append((name.encode("utf-8", "replace"), text.encode()))
            size += len(batch[-1][1])
            if size >= BATCH_BYTES:
                held.append(batch)
                yield Batch([text for _, text in batch], self.seed, self.last)
                batch, size = [], 0
        if batch:
            held.append(batch)
            yield Batch([text for _, text in batch], self.seed, self.last)

    def _write(self, batch: list[tuple[bytes, bytes]], found: np.ndarray, files: list) -> None:
        kept, places = [], []
        for number, rank in enumerate(found["rank"].tolist()):
            if rank > self.last:
                continue
            name, text = batch[number]
            bucket = rank * BUCKETS >> 64
            files[bucket].write(name)
            files[bucket].write(text)
            kept.append(number)
            places.append((bucket, self._ends[bucket], len(name), len(text)))
            self._ends[bucket] += len(name) + len(text)
            if self.most:
                self._narrow(rank, len(text))
        found = found[kept]
        found["place"] = np.array(places, dtype=PLACE)
        self._parts.append(found)

    def _narrow(self, rank: int, size: int) -> None:
        """Where a part is wanted, all beyond the lowest ranks that make it up can be dropped."""
        heapq.heappush(self._lowest, (-rank, size))
        self._kept += size
        while self._kept - self._lowest[0][1] >= self.most:
            self._kept -= heapq.heappop(self._lowest)[1]
        if self._kept >= self.most:
            self.last = -self._lowest[0][0]

    def index(self) -> np.ndarray:
        """(documents,) INDEX of what is kept: the part asked for is taken by rank, all over."""
        index = np.concatenate(self._parts)
        self._parts = [index]
        if self.most and len(index):
            order = np.argsort(index["rank"], kind="stable")
            sums = np.cumsum(index["place"]["bytes"][order])
            index = index[order[: np.searchsorted(sums, self.most) + 1]]
        return index


class Texts:
    """What a Shuffle wrote, read again."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: dict[int, int] = {}

    def read(self, places: np.ndarray) -> Iterator[tuple[str, bytes]]:
        """Names and texts."""
        for bucket, offset, name_bytes, size in places.tolist():
            data = os.pread(self._file(bucket), name_bytes + size, offset)
            if len(data) < name_bytes + size:  # one call reads 2 GiB at most
                with open(self.folder / str(bucket), "rb") as file:
                    file.seek(offset)
                    data = file.read(name_bytes + size)
            yield data[:name_bytes].decode(), data[name_bytes:]

    def _file(self, bucket: int) -> int:
        if bucket not in self._files:
            file = os.open(self.folder / str(bucket), os.O_RDONLY)
            if hasattr(os, "posix_fadvise"):  # soon all of it will be wanted
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
            self._files[bucket] = file
        return self._files[bucket]

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


def content_hash(index: np.ndarray) -> str:
    """Of the texts of all documents, whatever their order: SHA-256 of their sorted SHA-256."""
    order = np.lexsort(index["digest"].T[::-1])
    return hashlib.sha256(index["digest"][order].tobytes()).hexdigest()
