"""Documents: where they are read from.

A document is the unit that is split: no part of one stands both in training and in held-out text.
Documents are read one after the other and never all held, so a corpus may be larger than memory.
A damaged file ends the reading with its name and the place in it: what a compressed file promised
and does not hold is not passed over.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from llama_bench.fields import UserError
from llama_bench.measure.text import rows
from llama_bench.specs import Corpus
from llama_bench.text_files import kind, opened

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
        from llama_bench.measure.text import hub

        found = hub.rows(corpus, paths, [corpus.text_key], "data.corpus", "data.text_key")
        for number, row in enumerate(found, 1):
            text = row[corpus.text_key]
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
    if kind(path) in rows.KINDS:
        for number, row in rows.of_file(path, [text_key], "data.text_key"):
            text = row[text_key]
            if kind(path) == ".jsonl" and not isinstance(text, str):
                raise UserError(f"{path}: line {number} has no text under {text_key!r}")
            named = f"{path.name}:{number}"
            yield document(named, text) if isinstance(text, str) else None
        return
    with rows.reading(path), opened(path) as stream:
        yield from _of_text(path, stream)


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
