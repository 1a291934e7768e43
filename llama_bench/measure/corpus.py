"""Documents: where they are read from, and which of them are nearly the same.

A document is the unit that is split: no part of one stands both in training and in held-out text,
and neither do two that are nearly the same, or a model would be asked what it was told. Near means
a Jaccard similarity of word 5-grams above 0.7, estimated by MinHash with locality-sensitive
hashing (Broder 1997; Lee et al. 2021, arXiv 2107.06499, found such copies to be most of what
models repeat).
"""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from datasketch import MinHash, MinHashLSH

from llama_bench.fields import UserError
from llama_bench.specs import Corpus

# a plain text file longer than this is many documents, cut at blank lines
LONG_TEXT_BYTES = 65_536
PIECE_BYTES = 16_384

SIMILAR = 0.7
PERMUTATIONS = 64
MOST_SHINGLES = 2_000  # of a document; the smallest hashes stand for the rest


class Document(NamedTuple):
    name: str
    text: str


def documents(corpus: Corpus, paths: list[Path]) -> Iterator[Document | None]:
    """Every document of the corpus in a fixed order; None for one that is not text.

    `paths` are the files of a `files` corpus, in the order of its digests. Raises UserError
    naming file and line.
    """
    if corpus.source == "files":
        for path in paths:
            yield from _of_file(path, corpus.text_key)
        return
    folders = sysconfig.get_paths()
    if corpus.source == "python-stdlib":
        roots = [Path(folders["stdlib"])]
    else:
        roots = sorted({Path(folders["purelib"]), Path(folders["platlib"])})
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            installed = {"site-packages", "dist-packages"} & set(inside.parts)
            if not (corpus.source == "python-stdlib" and installed):
                yield _source_file(path, inside.as_posix())


def _source_file(path: Path, name: str) -> Document | None:
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return _document(name, text)


def _document(name: str, text: str) -> Document | None:
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    return Document(name, text) if text.strip() and "\0" not in text else None


def _of_file(path: Path, text_key: str | None) -> Iterator[Document | None]:
    if path.suffix == ".parquet":
        yield from _of_parquet(path, text_key)
        return
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _document(f"{path.name}:{number}", _field(path, number, line, text_key))
    elif path.suffix == ".py" or len(text) <= LONG_TEXT_BYTES:
        yield _document(path.name, text)
    else:
        for number, piece in enumerate(_pieces(text), 1):
            yield _document(f"{path.name}:{number}", piece)


def _field(path: Path, number: int, line: str, text_key: str) -> str:
    try:
        return json.loads(line)[text_key] + ""
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: line {number} is no JSON object with a text under {text_key!r}"
        ) from None


def _of_parquet(path: Path, text_key: str) -> Iterator[Document | None]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        if text_key not in file.schema_arrow.names:
            raise UserError(
                f"{path}: has no column {text_key!r} (columns: "
                f"{', '.join(file.schema_arrow.names)}); set data.text_key"
            )
        number = 0
        for batch in file.iter_batches(columns=[text_key]):
            for text in batch.column(0).to_pylist():
                number += 1
                yield _document(f"{path.name}:{number}", text) if isinstance(text, str) else None
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: is no readable Parquet file ({error})") from None


def _pieces(text: str) -> Iterator[str]:
    """Pieces of about 16 kB, cut at blank lines, or after any line where none is near."""
    held: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        held.append(line)
        size += len(line)
        if (size >= PIECE_BYTES and not line.strip()) or size >= 2 * PIECE_BYTES:
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)


def groups(docs: list[Document]) -> np.ndarray:
    """(documents,) int: the same number for documents that are nearly the same.

    A chain of similar documents is one group: the number is the index of its first.
    """
    index = MinHashLSH(threshold=SIMILAR, num_perm=PERMUTATIONS)
    root = list(range(len(docs)))

    def find(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    empty = MinHash(num_perm=PERMUTATIONS, hashfunc=int, seed=1)
    sketches = []
    for number, doc in enumerate(docs):
        sketch = empty.copy()
        sketch.update_batch(_shingles(doc.text).tolist())
        sketches.append(sketch)
        for other in index.query(sketch):
            if sketch.jaccard(sketches[other]) >= SIMILAR:
                first, second = sorted((find(number), find(other)))
                root[second] = first
        index.insert(number, sketch)
    return np.array([find(number) for number in range(len(docs))], dtype=np.int64)


def _shingles(text: str) -> np.ndarray:
    """32-bit hashes of the word 5-grams, the smallest 2,000 of them where there are more."""
    words: Iterable[bytes] = re.findall(rb"\w+", text.encode())
    hashes = np.fromiter(map(crc32, words), dtype=np.uint64)
    if len(hashes) < 5:
        return np.array([crc32(text.strip().encode())], dtype=np.uint64)
    mixed = np.zeros(len(hashes) - 4, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(5):
            part = hashes[offset : len(hashes) - 4 + offset]
            mixed = (mixed ^ part) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed >> np.uint64(32))[:MOST_SHINGLES]
