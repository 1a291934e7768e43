"""Anybody's table of runs: read, checked, and in floating point.

One row per run (or per point of a run). `params`, `tokens` and `flops` are counts, losses are in
nats per token. A run without `flops` cost 6 x params x tokens, computed in floating point: as
64-bit integers the product overflows at 9.2e18, which a 1B model passes at 1.5B tokens. Rows are
numbered from 1, the first row under the header, and keep their number whatever is left out.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from llama_bench.fields import UserError, number, unknown

# What each column may hold. Everything else in a table is carried along and never read.
POSITIVE = ("params", "tokens", "flops", "loss", "unique_tokens", "budget", "task_loss")
SHARES = ("accuracy",)
NOT_NEGATIVE = ("weight",)
# Beyond these no number is a measurement, and squares of it overflow.
RANGES = {
    "loss": (1e-12, 1e12),
    "task_loss": (1e-12, 1e12),
    "weight": (1e-30, 1e30),
    **dict.fromkeys(("params", "tokens", "flops", "unique_tokens", "budget"), (1e-3, 1e60)),
}
OPTIONAL = ("flops", "budget", "weight")
KNOWN = (*POSITIVE, *SHARES, *NOT_NEGATIVE, "seed")


@dataclass(frozen=True)
class Table:
    """Checked columns, each (n,) float64, and where its rows came from.

    rows: (n,) row numbers in the source. left_out: one {"row", "why"} for each row not here.
    """

    columns: dict[str, np.ndarray]
    rows: np.ndarray
    left_out: list[dict] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def keep(self, mask: np.ndarray, why: str) -> Table:
        """The rows where `mask` holds; the others are listed as left out because of `why`."""
        gone = [{"row": int(row), "why": why} for row in self.rows[~mask]]
        columns = {name: values[mask] for name, values in self.columns.items()}
        return Table(columns, self.rows[mask], self.left_out + gone)


def read(path: Path) -> pd.DataFrame:
    """A CSV (comma, semicolon or tab) or Parquet file. Raises UserError where it cannot be read."""
    path = Path(path)
    if not path.exists() or path.is_dir():
        raise UserError(f"{path}: there is no such file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        else:
            text = path.read_text(encoding="utf-8-sig")
            mark = max(",;\t", key=text.partition("\n")[0].count)
            frame = pd.read_csv(io.StringIO(text), sep=mark, skipinitialspace=True, index_col=False)
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty; a header and rows are needed") from None
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as a table: {reason}") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame


def checked(
    frame: pd.DataFrame,
    needs: Iterable[str],
    missing: str = "error",
    source: str = "runs",
    single: bool = True,
) -> Table:
    """The columns a law `needs`, and the optional ones that are there, as a Table.

    `tokens` may be derived from `flops`, and `flops` from `params` and `tokens`. `missing`: what an
    empty cell is, an "error" or a row to "leave-out". `single`: leave out exact repetitions of a
    row, which are copies and no evidence. Raises UserError naming the column and its rows.
    """
    needs = list(needs)
    if frame.columns.duplicated().any():
        twice = sorted(set(frame.columns[frame.columns.duplicated()]))
        raise UserError(f"{source}: column {', '.join(twice)} stands there twice")
    if not len(frame):
        raise UserError(f"{source}: the table has no rows")
    if "flops" in needs and "flops" not in frame.columns:
        needs = list(dict.fromkeys([*(c for c in needs if c != "flops"), "params", "tokens"]))
    if "tokens" in needs and "tokens" not in frame.columns and "flops" in frame.columns:
        needs = list(dict.fromkeys(["flops", "params", *(c for c in needs if c != "tokens")]))
    for name in needs:
        if name not in frame.columns:
            raise UserError(f"{source}: column {_absent(name, frame)}")
    columns = {name: _numbers(frame[name], name, missing, source) for name in needs}
    for name in OPTIONAL:
        if name in frame.columns and name not in columns:
            columns[name] = _numbers(frame[name], name, "leave-out", source)
    columns = _completed(columns, source)
    table = Table(columns, np.arange(1, len(frame) + 1))
    return _without_gaps(table, frame, needs, single)


def _completed(columns: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """`flops` and `tokens` where they follow from the other; optional columns with gaps dropped."""
    if "params" in columns and "tokens" in columns:
        with np.errstate(over="ignore"):
            flops = 6.0 * columns["params"] * columns["tokens"]
        given = columns.get("flops", flops)
        columns["flops"] = np.where(np.isnan(given), flops, given)
        _complain("flops", np.isinf(columns["flops"]), "(6 x params x tokens) is infinite", source)
    elif "params" in columns and "flops" in columns:
        columns["tokens"] = columns["flops"] / 6.0 / columns["params"]
    for name in ("budget", "flops"):
        if name in columns and np.isnan(columns[name]).any():
            del columns[name]
    return columns


def _absent(name: str, frame: pd.DataFrame) -> str:
    message = unknown(name, [str(c) for c in frame.columns], "column").split("; ", 1)[1]
    return f"{name!r} is missing; {message.replace('(known:', '(columns there:')}"


def _numbers(values: pd.Series, name: str, missing: str, source: str) -> np.ndarray:
    """One column as (n,) float64, checked against what its name allows."""
    result = np.empty(len(values))
    text = np.zeros(len(values), dtype=bool)
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        result = values.to_numpy(dtype=float, na_value=np.nan)
    else:
        for i, value in enumerate(values):
            try:
                result[i] = math.nan if _is_missing(value) else float(number(value))
            except (ValueError, OverflowError):
                text[i], result[i] = True, math.nan
    _complain(name, text, "is not a number", source, values)
    _complain(name, np.isinf(result), "is infinite", source)
    if missing == "error":
        _complain(
            name,
            np.isnan(result),
            "is missing (empty or NaN)",
            source,
            hint="; fill it in, or set missing to leave-out to fit without such rows",
        )
    if name in POSITIVE:
        _complain(name, result <= 0, "must be above zero", source, values)
    elif name in NOT_NEGATIVE:
        _complain(name, result < 0, "must not be negative", source, values)
    elif name in SHARES:
        _complain(name, (result < 0) | (result > 1), "must lie within 0 and 1", source, values)
    low, high = RANGES.get(name, (-np.inf, np.inf))
    beyond = (result != 0) & ((result < low) | (result > high))
    _complain(name, beyond, f"must lie within {low:g} and {high:g}", source, values)
    return result


def _is_missing(value) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan", "na", "n/a", "null", "none")
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _complain(name, wrong, what, source, values=None, hint=""):
    if not wrong.any():
        return
    places = np.flatnonzero(wrong)
    shown = ", ".join(str(i + 1) for i in places[:8]) + (", ..." if len(places) > 8 else "")
    example = f" ({str(values.iloc[places[0]])!r})" if values is not None else ""
    rows = "row" if len(places) == 1 else f"{len(places)} rows:"
    raise UserError(f"{source}: column {name!r} {what} in {rows} {shown}{example}{hint}")


def _without_gaps(table: Table, frame: pd.DataFrame, needs: list[str], single: bool) -> Table:
    for name in [c for c in [*needs, "weight"] if c in table]:
        lacks = np.isnan(table[name])
        if lacks.any():
            table = table.keep(~lacks, f"{name} is missing")
    if "weight" in table:
        table = table.keep(table["weight"] > 0, "its weight is zero")
    if single and len(table):
        known = [c for c in KNOWN if c in frame.columns]
        copies = frame[known].astype(str).duplicated().to_numpy()[table.rows - 1]
        table = table.keep(~copies, "an exact copy of an earlier row")
    if not len(table):
        reasons = sorted({entry["why"] for entry in table.left_out})
        raise UserError(f"no row is left to fit: {'; '.join(reasons)}")
    return table
