"""Held-out text: validation as tokens, test as text, and sketches of both.

One run draws it; others, with another training text, take it over as it is, together with the
tokenizer, so that their losses can be compared. The sketches tell what is nearly the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure.text.shuffle import Texts
from llama_bench.measure.text.tokenizer import Encoder

TOKENIZER = "tokenizer"
VALIDATION, TOKEN_BYTES, TEST = "validation.bin", "token_bytes.npy", "held_out.parquet"
SKETCHES = "held_out_sketches.npy"
FILES = (VALIDATION, TOKEN_BYTES, TEST, SKETCHES)
AT_ONCE_BYTES = 2_000_000

_TEXT = pa.schema([("name", pa.string()), ("text", pa.string())])


def write(folder: Path, shuffled: Path, validation: np.ndarray, test: np.ndarray) -> dict:
    """Write FILES from both parts' index, with the tokenizer of `folder`; returns their counts.

    Where tokens do not hold the text, all of them count 0 bytes, and bits per byte is missing.
    """
    encoder, source = Encoder(folder / TOKENIZER), Texts(shuffled)
    lost, size = None, 0
    with open(folder / VALIDATION, "wb") as file:
        for part in _some(source, validation):
            held = [text for _, text in part]
            lost = lost or encoder.loss_of(held)
            size += file.write(encoder.pack(held))
    lengths = encoder.token_bytes()
    np.save(folder / TOKEN_BYTES, np.zeros_like(lengths) if lost else lengths)
    _write_text(folder / TEST, _some(source, test))
    np.save(folder / SKETCHES, np.concatenate([validation["sketch"], test["sketch"]]))
    parts = {"validation": validation["place"]["bytes"], "test": test["place"]["bytes"]}
    tokens = size // encoder.dtype.itemsize
    return {
        "documents": {part: len(sizes) for part, sizes in parts.items()},
        "bytes": {part: int(sizes.sum()) for part, sizes in parts.items()},
        "tokens": {"validation": tokens},
        "vocab_size": encoder.vocab_size,
        "token_width": encoder.dtype.itemsize,
        "bytes_per_token": int(parts["validation"].sum()) / tokens,
        "bits_per_byte_reason": lost,
    }


def _some(source: Texts, index: np.ndarray) -> Iterator[list[tuple[str, bytes]]]:
    """Documents, no more at a time than memory holds anyway."""
    number = np.cumsum(index["place"]["bytes"], dtype=np.int64) // AT_ONCE_BYTES
    for places in np.split(index["place"], np.flatnonzero(np.diff(number)) + 1):
        yield list(source.read(places))


def _write_text(path: Path, parts: Iterator[list[tuple[str, bytes]]]) -> None:
    with pq.ParquetWriter(path, _TEXT, compression="zstd") as table:
        for part in parts:
            columns = [[name.encode() for name, _ in part], [text for _, text in part]]
            arrays = [_strings(column) for column in columns]
            table.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_TEXT))


def _strings(values: list[bytes]) -> pa.StringArray:
    """By way of buffers: from Python lists Arrow would import pandas (0.4 s)."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(values), pa.py_buffer(ends), pa.py_buffer(b"".join(values))
    )


def test_texts(folder: Path) -> list[tuple[str, str]]:
    """Names and texts of the test documents, sorted. Raises UserError naming the file."""
    path = folder / TEST
    try:
        table = pq.ParquetFile(path).read(["name", "text"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    return sorted(zip(table["name"].to_pylist(), table["text"].to_pylist(), strict=True))


def sketches(folder: Path) -> np.ndarray:
    return np.load(folder / SKETCHES)


def adopt(record: Path, folder: Path) -> dict:
    """Take over tokenizer and FILES of the run with this record; returns their counts."""
    (folder / TOKENIZER).mkdir()
    inside = sorted((record.parent / TOKENIZER).iterdir())
    for name in (*FILES, *(f"{TOKENIZER}/{path.name}" for path in inside)):
        _link(record.parent / name, folder / name)
    result = records.read(record).result
    kept = ("vocab_size", "token_width", "bytes_per_token", "bits_per_byte_reason")
    return {
        "documents": {part: result["documents"][part] for part in ("validation", "test")},
        "bytes": {part: result["bytes"][part] for part in ("validation", "test")},
        "tokens": {"validation": result["tokens"]["validation"]},
        **{key: result[key] for key in kept},
    }


def _link(source: Path, target: Path) -> None:
    """One file in two folders; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
