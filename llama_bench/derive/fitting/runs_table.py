"""Anybody's table of runs: read, checked, and in floating point.

One row per run (or per point of a run). `params`, `tokens` and `flops` are counts, losses are in
nats per token. A run without `flops` cost 6 x params x tokens, computed in floating point: as
64-bit integers the product overflows at 9.2e18, which a 1B model passes at 1.5B tokens. Rows are
numbered from 1, the first row under the header, and keep their number whatever is left out.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from llama_bench.fields import UserError, number

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
ENDS = ("chance", "ceiling")  # of the accuracy
# One comma and three digits: 4.123 to some, 4123 to others.
DOUBTFUL = re.compile(r"[+-]?\d{1,3},\d{3}([^\d.,].*)?")


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


def checked(
    frame: pd.DataFrame,
    needs: Iterable[str],
    missing: str = "error",
    source: str = "runs",
    points: bool = False,
) -> Table:
    """The columns a law `needs`, and the optional ones that are there, as a Table.

    `tokens` may be derived from `flops`, and `flops` from `params` and `tokens`. `missing`: what an
    empty cell is, an "error" or a row to "leave-out". `points`: the rows are to be predicted, so
    none is left out, while of runs exact repetitions are: copies and no evidence. Raises UserError
    naming the column and its rows.
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
    gaps = missing if missing != "error" else "of a point" if points else "of a run"
    columns = {name: numbers(frame, name, source, gaps) for name in needs}
    for name in OPTIONAL:
        if name in frame.columns and name not in columns and not (points and name == "weight"):
            columns[name] = numbers(frame, name, source)
    columns = _completed(columns, source)
    table = Table(columns, np.arange(1, len(frame) + 1))
    return _without_gaps(table, frame, needs, not points)


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
    """That a column is missing, and which may have been meant: none that stands for another
    quantity, though it be spelt alike (loss, flops)."""
    there = sorted(str(c) for c in frame.columns)
    others = tuple(f"{count}_" for count in ("params", "flops") if count != name)
    free = [c for c in there if c not in (*KNOWN, *ENDS) and not c.startswith(others)]
    near = difflib.get_close_matches(name, free, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{name!r} is missing; {hint}columns there: {', '.join(there)}"


# What to do about an empty cell; where it may stay empty there is nothing to do.
REMEDIES = {
    "of a run": "fill it in, or set missing to leave-out to fit without such rows",
    "of a point": "fill it in, or take such rows out: a point needs its numbers to be predicted",
}


def numbers(frame: pd.DataFrame, name: str, source: str, gaps: str = "leave-out") -> np.ndarray:
    """One column as (n,) float64, checked against what its name allows; an empty cell is NaN, or
    an error where `gaps` names a remedy."""
    values = frame[name]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        result = values.to_numpy(dtype=float, na_value=np.nan)
    else:
        result = _from_text(values, name, source, frame.attrs.get("separator", ","))
    _complain(name, np.isinf(result), "is infinite", source)
    if gaps in REMEDIES:
        remedy = f"; {REMEDIES[gaps]}"
        _complain(name, np.isnan(result), "is missing (empty or NaN)", source, hint=remedy)
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


def _from_text(values: pd.Series, name: str, source: str, separator: str) -> np.ndarray:
    """Numbers as people write them. Whoever separates cells by semicolons may write decimals with a
    comma, so that one comma before three digits could mean either."""
    result = np.full(len(values), np.nan)
    text, commas, doubtful = np.zeros((3, len(values)), dtype=bool)
    for i, value in enumerate(values):
        if _is_missing(value):
            continue
        try:
            result[i] = float(number(value))
            doubtful[i] = DOUBTFUL.fullmatch(str(value).strip()) is not None
        except (ValueError, OverflowError):
            text[i] = True
            commas[i] = "," in str(value) and _reads(str(value).replace(",", ""))
    point = "; write a decimal point, and commas before groups of three digits only"
    _complain(name, commas, "has a comma that marks no thousands", source, values, point)
    _complain(name, text, "is not a number", source, values)
    if separator != ",":
        plain = "; write a decimal point, or the thousands without a comma: 4.123 or 4123"
        _complain(name, doubtful, "has a comma of two meanings", source, values, plain)
    return result


def _reads(text: str) -> bool:
    try:
        return math.isfinite(number(text))
    except ValueError:
        return False


def _is_missing(value) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan", "na", "n/a", "null", "none")
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _complain(name, wrong, what, source, values=None, hint=""):
    if not wrong.any():
        return
    places = np.flatnonzero(wrong)
    example = f" ({str(values.iloc[places[0]])!r})" if values is not None else ""
    raise UserError(f"{source}: column {name!r} {what} in {listed(places + 1)}{example}{hint}")


def listed(rows) -> str:
    """row 3; 9 rows: 1, 2, 3, ..."""
    shown = ", ".join(str(row) for row in rows[:8]) + (", ..." if len(rows) > 8 else "")
    return f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows: {shown}"


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
