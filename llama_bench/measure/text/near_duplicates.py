"""Which documents are nearly the same: MinHash sketches, and groups of similar ones.

Near means a Jaccard similarity of word 5-grams of at least 0.7, estimated by MinHash (Broder 1997)
with 64 of datasketch's permutations; Lee et al. 2021 (arXiv 2107.06499) found such copies to be
most of what models repeat. Candidates are pairs that agree in one of 16 bands of 4 values
(Leskovec, Rajaraman and Ullman 2014, section 3.4): a pair of similarity s is one with probability
1 - (1 - s^4)^16, which is 0.99 at 0.7.

A word is a run of letters, digits and underscores; characters of scripts that are written without
spaces (three and more bytes in UTF-8) stand alone. Only words count, so that punctuation, blanks
and what `cleaning.unicode` drops do not tell documents apart. A sketch is 256 bytes, whatever the
document's length. All of this works on arrays of many documents at once: with a Python object per
word 5-gram it would be the slowest part of `prepare`.
"""

from __future__ import annotations

import re
from itertools import chain
from zlib import crc32

import numpy as np
from datasketch import MinHash

from llama_bench.measure.text.cleaning import unicode

SIMILAR = 0.7
PERMUTATIONS = 64
BANDS = 16
SHINGLE_WORDS = 5
MOST_SHINGLES = 2_000  # of a document; the smallest hashes stand for the rest

_WORD = re.compile(rb"[0-9A-Za-z_\x80-\xdf]+|[\xe0-\xff][\x80-\xbf]+")
_FACTORS, _OFFSETS = MinHash(num_perm=PERMUTATIONS, seed=1, scheme="affine32").permutations


def sketches(texts: list[bytes]) -> np.ndarray:
    """(documents, permutations) uint32: the MinHash of each."""
    if not texts:
        return np.empty((0, PERMUTATIONS), dtype=np.uint32)
    hashes, sizes = _shingles(texts)
    return minhash(hashes, np.cumsum(sizes) - sizes)


def minhash(hashes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(sets, permutations) uint32 of sets of uint32 hashes that lie one after the other.

    Equal to datasketch's `MinHash(scheme="affine32")` of each set, value by value.
    """
    mixed = hashes.astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):  # MurmurHash3's finalizer
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    found = np.empty((len(starts), PERMUTATIONS), dtype=np.uint32)
    for column, (factor, offset) in enumerate(zip(_FACTORS, _OFFSETS, strict=True)):
        np.minimum.reduceat(mixed * factor + offset, starts, out=found[:, column])
    return found


def _shingles(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """32-bit hashes of each text's word 5-grams, and their count per text."""
    words = [_words(text) for text in texts]
    counts = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    hashes = np.fromiter(map(crc32, chain.from_iterable(words)), np.uint64, int(counts.sum()))
    after = SHINGLE_WORDS - 1
    mixed = np.zeros(len(hashes) - after, dtype=np.uint64)
    for offset in range(SHINGLE_WORDS):
        mixed = (mixed ^ hashes[offset : offset + len(mixed)]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    ends = np.cumsum(counts)
    all_ = (mixed >> np.uint64(32)).astype(np.uint32)
    parts = [
        _smallest(all_[end - count : end - after])
        for end, count in zip(ends.tolist(), counts.tolist(), strict=True)
    ]
    return np.concatenate(parts), np.fromiter(map(len, parts), np.int64, len(parts))


def _words(text: bytes) -> list[bytes]:
    """At least five: a text of fewer is one word, said five times."""
    text = unicode(text)
    found = _WORD.findall(text)
    if len(found) < SHINGLE_WORDS:
        found = [b" ".join(found) or b"".join(text.split())] * SHINGLE_WORDS
    return found


def _smallest(hashes: np.ndarray) -> np.ndarray:
    return hashes if len(hashes) <= MOST_SHINGLES else np.unique(hashes)[:MOST_SHINGLES]


def groups(found: np.ndarray) -> np.ndarray:
    """(documents,) int64: the same number for documents that are nearly the same.

    A chain of similar documents is one group: the number is the index of its first.
    """
    root = np.arange(len(found))

    def top(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return int(item)

    rows = PERMUTATIONS // BANDS
    for band in range(BANDS):
        for members in _agreeing(found[:, band * rows : (band + 1) * rows]):
            _join(found, members, root, top)
    for item in range(len(root)):
        root[item] = root[root[item]]  # never above itself, so already final
    return root


def _join(found: np.ndarray, members: np.ndarray, root: np.ndarray, top) -> None:
    """Make one of those candidates that are similar; the smallest index leads."""
    tops = np.array([top(member) for member in members.tolist()])
    for place, member in enumerate(members.tolist()):
        apart = np.flatnonzero(tops[place + 1 :] != tops[place]) + place + 1
        if not len(apart):
            if (tops == tops[0]).all():
                return
            continue
        similar = (found[members[apart]] == found[member]).mean(axis=1) >= SIMILAR
        for other in apart[similar].tolist():
            first, second = sorted((int(tops[place]), int(tops[other])))
            root[second] = first
            tops[tops == second] = first


def _agreeing(band: np.ndarray) -> list[np.ndarray]:
    """Indices, ascending, of every two or more documents whose values in one band are equal."""
    if not len(band):
        return []
    key = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(31)
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=~key[order[:1]]))
    last = np.append(first[1:], len(order))
    return [order[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True) if b - a > 1]
