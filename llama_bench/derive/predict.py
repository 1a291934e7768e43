"""The verb `predict`: the point and its intervals for each row of a table.

    python -m llama_bench predict FIT.json OUT.csv POINTS.csv

OUT has the columns of POINTS, then `point`, `low_50`, `high_50`, `covered_50` and so on for every
level, and the fit's `status`. `covered_` is the share of the back-test's hidden runs that such an
interval held; an interval without an end says inf.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llama_bench.derive.allocation import optimum_fit
from llama_bench.derive.fit import SCHEMA, write
from llama_bench.derive.fitting import families, runs_table, table_file
from llama_bench.derive.fitting.methods import Single
from llama_bench.fields import UserError

LEVELS = (0.5, 0.8, 0.95)


def run(spec: str, output: Path, inputs: list[Path]) -> None:
    """Predict the one table in `inputs` from the fit file whose path is `spec`."""
    if len(inputs) != 1:
        raise UserError(f"predict: one table of points is needed, {len(inputs)} given")
    fit = read_fit(Path(spec))
    table = predict_table(fit, table_file.read(inputs[0]), source=str(inputs[0]))
    write(output, table.to_csv(index=False))


def read_fit(path: Path) -> dict:
    """A fit file's content. Raises UserError where it is none."""
    try:
        fit = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: is no JSON: {error}") from None
    if not isinstance(fit, dict) or fit.get("schema") != SCHEMA or "law" not in fit:
        raise UserError(f"{path}: is no fit file of schema {SCHEMA}; make one with the verb fit")
    return fit


def predict_table(
    fit: dict, points: pd.DataFrame, levels: Sequence[float] = LEVELS, source: str = "points"
) -> pd.DataFrame:
    """`points` with the law's point and interval for each row; rows and their order are kept.

    Columns added: point, then low_<percent>, high_<percent>, covered_<percent> for each of
    `levels`, and status. point is NaN, and the interval endless, where the fit determines nothing.
    """
    family, settings = families.known(fit["settings"])
    result = points.reset_index(drop=True).copy()
    levels = sorted(levels)
    if family.optima is not None:
        table = runs_table.checked(points, ["flops"], source=source, points=True)
        found = _nothing(len(result), levels)
        if fit["predict"] is not None:
            found = optimum_fit.columns(fit, table, levels, lambda test: _tested(test, levels))
    else:
        method = family.method(settings)
        needs = method.columns[:-1] if isinstance(method, Single) else method.first.needs
        table = runs_table.checked(points, needs, source=source, points=True)
        found = _nothing(len(result), levels)
        if fit["predict"] is not None:
            found = _columns(fit, method, table, levels)
    for name, values in found.items():
        result[name] = values
    result["status"] = fit["status"]
    return result


def _nothing(rows: int, levels) -> dict:
    nothing = np.full(rows, np.nan)
    return {"point": nothing} | {
        f"{end}_{_percent(level)}": nothing
        for level in levels
        for end in ("low", "high", "covered")
    }


def _tested(back_test: dict | None, levels) -> tuple[dict, dict]:
    """level -> covered share, for the levels that were tested; tested level -> widening."""
    entries = (back_test or {}).get("levels", [])
    shares = {e["level"]: e["covered"] for e in entries if e["level"] in levels}
    return shares, {e["level"]: e["widening"] for e in entries}


def _columns(fit: dict, method, table, levels) -> dict:
    shares, widening = _tested(fit.get("back_test"), levels)
    made = method.forecast(fit["predict"], table.columns, levels, widening)
    columns = {"point": made.point}
    for level in levels:
        percent = _percent(level)
        columns[f"low_{percent}"], columns[f"high_{percent}"] = made.intervals[level]
        columns[f"covered_{percent}"] = shares.get(level, np.nan)
    return columns


def _percent(level: float) -> str:
    return f"{100 * level:.3g}"
