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

from llama_bench import records
from llama_bench.derive import laws, runs_table
from llama_bench.derive.fit import SCHEMA
from llama_bench.derive.intervals import forecast
from llama_bench.fields import UserError

LEVELS = (0.5, 0.8, 0.95)


def run(spec: str, output: Path, inputs: list[Path]) -> None:
    """Predict the one table in `inputs` from the fit file whose path is `spec`."""
    if len(inputs) != 1:
        raise UserError(f"predict: one table of points is needed, {len(inputs)} given")
    fit = read_fit(Path(spec))
    table = predict_table(fit, runs_table.read(inputs[0]), source=str(inputs[0]))
    try:
        records.write_text(output, table.to_csv(index=False))
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None


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
    law = laws.law_for(laws.settings_for(fit["settings"]))
    table = runs_table.checked(points, law.needs, "error", source, single=False)
    result = points.reset_index(drop=True).copy()
    if fit["predict"] is None:
        nothing = np.full(len(result), np.nan)
        found = {"point": nothing} | {
            f"{end}_{_percent(level)}": nothing
            for level in levels for end in ("low", "high", "covered")
        }
    else:
        found = _columns(fit, law, table, levels)
    for name, values in found.items():
        result[name] = values
    result["status"] = fit["status"]
    return result


def _columns(fit: dict, law, table, levels) -> dict:
    widening, covered = {}, {}
    for entry in (fit.get("back_test") or {}).get("levels", []):
        widening[entry["level"]] = entry["widening"]
        covered[entry["level"]] = entry["covered"]
    made = forecast(law, fit["predict"], table.columns, levels, widening)
    columns = {"point": made.point}
    for level in levels:
        percent = _percent(level)
        columns[f"low_{percent}"], columns[f"high_{percent}"] = made.intervals[level]
        share = covered.get(level)
        columns[f"covered_{percent}"] = np.nan if share is None else share
    return columns


def _percent(level: float) -> str:
    return f"{100 * level:.3g}"
