"""Files of text, plain or compressed: what kind they are, opened, and refused by their heads.

The last suffix may name a compression; the one before it says what is inside. What the first
kilobytes show to be no text is refused before any job starts; the rest is `prepare`'s to find.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import zlib
from pathlib import Path
from typing import BinaryIO

KINDS = (".txt", ".md", ".py", ".jsonl", ".parquet")
HEAD_BYTES = 65_536


def _zstd(path: Path) -> BinaryIO:
    import pyarrow  # 0.1 s, so only where it is needed

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))


_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd}  # to read bytes

# what reading a damaged file raises, whatever its compression
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


def kind(path: Path) -> str:
    """`.jsonl` of `notes.jsonl` and of `notes.jsonl.gz`."""
    return Path(path.stem).suffix if path.suffix in _OPENERS else path.suffix


def is_compressed(path: Path) -> bool:
    return path.suffix in _OPENERS


def opened(path: Path) -> BinaryIO:
    """The content, decompressed as it is read. A file that ends too early raises READ_ERRORS."""
    return _OPENERS[path.suffix](path) if is_compressed(path) else open(path, "rb")


def trouble(error: Exception) -> str:
    """One of READ_ERRORS in words that follow the file's name."""
    if getattr(error, "errno", None):
        return f"cannot be read ({error.strerror})"
    return f"is cut short or damaged ({error})"


def check_head(path: Path, text_key: str | None) -> None:
    """Refuse what can be seen to be no text from its first kilobytes. Of JSONL without a `text_key`
    the first line may hold anything. Raises ValueError."""
    if kind(path) not in KINDS:
        raise ValueError(f"{path} is none of {', '.join(KINDS)} (or one of them compressed)")
    if kind(path) == ".parquet" and is_compressed(path):
        raise ValueError(f"{path}: a Parquet file compresses itself; decompress this one")
    try:
        with opened(path) as file:
            head = file.read(HEAD_BYTES)
    except READ_ERRORS as error:
        raise ValueError(f"{path} {trouble(error)}") from None
    if not head.strip():
        raise ValueError(f"{path} is empty")
    if kind(path) == ".parquet":
        if not head.startswith(b"PAR1") or not _ends_with(path, b"PAR1"):
            raise ValueError(f"{path} is not a whole Parquet file")
        return
    if b"\0" in head:
        raise ValueError(f"{path} is binary, not text")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from None
    if kind(path) == ".jsonl" and text_key is not None:
        _check_line(path, head, text_key)


def first_row(path: Path) -> dict | None:
    """The first line of a JSONL file; None where it is too long to be seen at a glance.
    Raises ValueError."""
    with opened(path) as file:
        head = file.read(HEAD_BYTES)
    line = head.removeprefix(codecs.BOM_UTF8).strip().splitlines()[0]
    if len(line) >= HEAD_BYTES - 536:
        return None
    try:
        first = json.loads(line)
    except ValueError:
        first = None
    if not isinstance(first, dict):
        raise ValueError(f"{path}: its first line is no JSON object; write one for every example")
    return first


def parquet_columns(path: Path, wanted: list[str]) -> list[str] | None:
    """A Parquet file's columns; None where all that are `wanted` are there."""
    with open(path, "rb") as file:
        file.seek(-8, io.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-min(length + 8, path.stat().st_size), io.SEEK_END)
        footer = file.read(length)
    if all(name.encode() in footer for name in wanted):  # names stand there as they are
        return None
    from pyarrow import parquet  # 0.3 s, so only to say what there is

    return list(parquet.read_schema(path).names)


def _ends_with(path: Path, wanted: bytes) -> bool:
    with open(path, "rb") as file:
        file.seek(-min(len(wanted), path.stat().st_size), io.SEEK_END)
        return file.read() == wanted


def _check_line(path: Path, head: bytes, text_key: str) -> None:
    line = head.removeprefix(codecs.BOM_UTF8).strip().splitlines()[0]
    if len(line) >= HEAD_BYTES - 536:  # a long first document: prepare reads it whole
        return
    try:
        first = json.loads(line)
    except ValueError:
        raise ValueError(f"{path}: its first line is not JSON") from None
    if not isinstance(first, dict) or not isinstance(first.get(text_key), str):
        keys = ", ".join(first) if isinstance(first, dict) else "none"
        raise ValueError(
            f"{path}: its first line has no text under {text_key!r} (keys: {keys}); "
            "set data.text_key"
        )
