"""Rows of JSONL and Parquet files: one after the other, the columns that are asked.

A damaged file ends the reading with its name and the place in it, and a column that is not there
with those that are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llama_bench.fields import UserError
from llama_bench.text_files import READ_ERRORS, kind, opened, trouble

KINDS = (".jsonl", ".parquet")

Row = dict[str, object]


def of_file(path: Path, columns: list[str], setting: str) -> Iterator[tuple[int, Row]]:
    """Each row with its line or place in the file. `setting` is what names the columns in the
    configuration. Raises UserError."""
    if kind(path) == ".parquet":
        yield from _of_parquet(path, columns, setting)
        return
    with reading(path), opened(path) as stream:
        yield from _of_jsonl(path, stream, columns, setting)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong in a file, in words that begin with its name."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except READ_ERRORS as error:
        raise UserError(f"{path}: {trouble(error)}") from None


def require(row_or_columns, columns: list[str], where: str, setting: str) -> None:
    """Raises UserError for the first column that is not among those there are."""
    for column in columns:
        if column not in row_or_columns:
            raise UserError(
                f"{where} has no column {column!r} (columns: {', '.join(row_or_columns)}); "
                f"set {setting}"
            )


def _of_jsonl(
    path: Path, stream: BinaryIO, columns: list[str], setting: str
) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise UserError(f"{path}: line {number} is not UTF-8 text") from None
        except ValueError:
            raise UserError(f"{path}: line {number} is no JSON object") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number} is no JSON object")
        require(row, columns, f"{path}: line {number}", setting)
        yield number, row


def _of_parquet(path: Path, columns: list[str], setting: str) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        require(file.schema_arrow.names, columns, f"{path}:", setting)
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for values in zip(*(batch.column(column) for column in columns), strict=True):
                number += 1
                yield number, {c: v.as_py() for c, v in zip(columns, values, strict=True)}
    except UnicodeDecodeError:
        raise UserError(f"{path}: row {number} is not UTF-8 text") from None
    except (pyarrow.ArrowException, OSError) as error:
        what = f"after row {number} " if number else ""
        raise UserError(f"{path}: is no readable Parquet file {what}({error})") from None
