"""Documents: where they are read from.

A document is the unit that is split: no part of one stands both in training and in held-out text.
Documents are read one after the other and never all held, so a corpus may be larger than memory.
A damaged file ends the reading with its name and the place in it: what a compressed file promised
and does not hold is not passed over.
"""

from __future__ import annotations

import json
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from llama_bench.fields import UserError
from llama_bench.specs import Corpus
from llama_bench.text_files import READ_ERRORS, kind, opened, trouble

# a plain text file longer than this is many documents, cut at blank lines
LONG_TEXT_BYTES = 65_536
PIECE_BYTES = 16_384


class Document(NamedTuple):
    name: str
    text: str


def documents(corpus: Corpus, paths: list[Path]) -> Iterator[Document | None]:
    """Every document of the corpus in a fixed order; None for one that is not text.

    `paths` are the files of a `files` corpus, in the order of its digests, or the folder of a
    local dataset. Raises UserError naming file and place.
    """
    if corpus.source == "hub":
        from llama_bench.measure.text.hub import rows

        for number, text in enumerate(rows(corpus, paths), 1):
            yield document(f"{corpus.repo}:{number}", text) if isinstance(text, str) else None
    elif corpus.source == "files":
        for path in paths:
            yield from _of_file(path, corpus.text_key)
    else:
        yield from _of_python(corpus.source)


def document(name: str, text: str) -> Document | None:
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can spell it
        return None
    return Document(name, text) if text.strip() and "\0" not in text else None


def _of_python(source: str) -> Iterator[Document | None]:
    folders = sysconfig.get_paths()
    if source == "python-stdlib":
        roots, left_out = {folders["stdlib"]}, {"site-packages", "dist-packages"}
    else:
        roots, left_out = {folders["purelib"], folders["platlib"]}, set()
    for root in sorted(roots):
        for path in _sources(root, left_out):
            try:
                text = path.read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError):
                yield None
                continue
            yield document(path.relative_to(root).as_posix(), text)


def _sources(root: str, left_out: set[str]) -> Iterator[Path]:
    """Python files below a folder, sorted; other packages' folders are not even looked into."""
    for folder, below, files in os.walk(root):
        below[:] = sorted(set(below) - left_out)
        for name in sorted(files):
            if name.endswith(".py"):
                yield Path(folder, name)


def _of_file(path: Path, text_key: str | None) -> Iterator[Document | None]:
    try:
        if kind(path) == ".parquet":
            yield from _of_parquet(path, text_key)
            return
        with opened(path) as stream:
            if kind(path) == ".jsonl":
                yield from _of_jsonl(path, stream, text_key)
            else:
                yield from _of_text(path, stream)
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except READ_ERRORS as error:
        raise UserError(f"{path}: {trouble(error)}") from None


def _of_jsonl(path: Path, stream: BinaryIO, text_key: str) -> Iterator[Document | None]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line.decode("utf-8-sig"))[text_key] + ""
        except UnicodeDecodeError:
            raise UserError(f"{path}: line {number} is not UTF-8 text") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path}: line {number} is no JSON object with a text under {text_key!r}"
            ) from None
        yield document(f"{path.name}:{number}", text)


def _of_text(path: Path, stream: BinaryIO) -> Iterator[Document | None]:
    head = stream.read(LONG_TEXT_BYTES + 1)
    if kind(path) == ".py" or len(head) <= LONG_TEXT_BYTES:
        yield document(path.name, (head + stream.read()).decode("utf-8"))
        return
    read = 0
    for number, piece in enumerate(_pieces(head, stream), 1):
        try:
            yield document(f"{path.name}:{number}", piece.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is not UTF-8 text (byte {read + error.start})") from None
        read += len(piece)


def _pieces(held: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """Pieces of about 16 kB, cut at blank lines, or after any line or word where none is near."""
    while held:
        while len(held) < LONG_TEXT_BYTES and (more := stream.read(LONG_TEXT_BYTES)):
            held += more
        cut = _cut(held)
        yield held[:cut]
        held = held[cut:]


_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")


def _cut(held: bytes) -> int:
    most = 2 * PIECE_BYTES
    if len(held) <= most:
        return len(held)
    blank = _BLANK_LINE.search(held, PIECE_BYTES, most)
    if blank:
        return blank.end()
    for end in (b"\n", b" "):
        place = held.rfind(end, PIECE_BYTES, most)
        if place > 0:
            return place + 1
    while held[most] & 0xC0 == 0x80:  # not within a character
        most += 1
    return most


def _of_parquet(path: Path, text_key: str) -> Iterator[Document | None]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        if text_key not in file.schema_arrow.names:
            raise UserError(
                f"{path}: has no column {text_key!r} (columns: "
                f"{', '.join(file.schema_arrow.names)}); set data.text_key"
            )
        for batch in file.iter_batches(batch_size=1024, columns=[text_key]):
            for text in batch.column(0):
                number += 1
                text = text.as_py()
                named = f"{path.name}:{number}"
                yield document(named, text) if isinstance(text, str) else None
    except UnicodeDecodeError:
        raise UserError(f"{path}: row {number} is not UTF-8 text") from None
    except (pyarrow.ArrowException, OSError) as error:
        what = f"after row {number} " if number else ""
        raise UserError(f"{path}: is no readable Parquet file {what}({error})") from None
