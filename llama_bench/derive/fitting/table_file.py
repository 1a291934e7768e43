"""Anybody's table as a file: CSV, whatever separates its cells, or Parquet."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path

import pandas as pd

from llama_bench.derive.fitting.runs_table import listed
from llama_bench.fields import UserError


def read(path: Path) -> pd.DataFrame:
    """A CSV (comma, semicolon or tab: `attrs["separator"]`) or Parquet file.

    Raises UserError where it cannot be read.
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        raise UserError(f"{path}: there is no such file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        else:
            text = path.read_text(encoding="utf-8-sig")
            mark = max(",;\t", key=text.partition("\n")[0].count)
            _no_cell_beyond(text, mark, path)
            with warnings.catch_warnings():  # cells beyond the header, which are empty
                warnings.simplefilter("ignore", pd.errors.ParserWarning)
                frame = pd.read_csv(
                    io.StringIO(text), sep=mark, skipinitialspace=True, index_col=False
                )
            frame.attrs["separator"] = mark
    except UserError:
        raise
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty; a header and rows are needed") from None
    except (ValueError, OSError, csv.Error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as a table: {reason}") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame


def _no_cell_beyond(text: str, mark: str, path: Path) -> None:
    """Raises UserError where a row has a cell that no column is for: a decimal comma splits one
    number into two, and the second would be lost."""
    lines = csv.reader(io.StringIO(text), delimiter=mark, skipinitialspace=True)
    header, *rows = [row for row in lines if row] or [[]]
    long = [i for i, row in enumerate(rows, 1) if any(cell.strip() for cell in row[len(header) :])]
    if long:
        example = mark.join(rows[long[0] - 1])
        raise UserError(
            f"{path}: more cells than the {len(header)} columns in {listed(long)} ({example!r}); "
            "write a decimal point where that is a decimal comma"
        )
