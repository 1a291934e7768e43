"""The study's tables: how their rows are made and how they lie on disk.

Parquet is the truth, the CSV beside it an export for people and other tools. Missing is null. All
tables are always written, with their columns even where there is nothing to tell, and equal rows
give equal bytes (pyarrow alone: no index, no date).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llama_bench.derive.tables.columns import COLUMNS, EVALUATED, PROBED
from llama_bench.fields import UserError

Row = tuple[str, dict[str, Any]]  # (table, row)


def row(table: str, **values: Any) -> dict[str, Any]:
    """A row of `table`; columns not given are null. An unknown column is a bug."""
    unknown = set(values) - set(COLUMNS[table])
    assert not unknown, f"{table} has no column {unknown}"
    return {name: _as(kind, values.get(name)) for name, kind in COLUMNS[table].items()}


def picked(table: str, content: dict[str, Any], but: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `content` says under the names of the table's columns, those in `but` left out."""
    return {name: content[name] for name in COLUMNS[table] if name in content and name not in but}


def _as(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "text":
        return str(value)
    return {"count": int, "real": float, "flag": bool}[kind](value)


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """NAME.parquet and NAME.csv in `folder`, each whole or not at all."""
    import pyarrow
    from pyarrow import csv, parquet

    kinds = {
        "text": pyarrow.string(),
        "count": pyarrow.int64(),
        "real": pyarrow.float64(),
        "flag": pyarrow.bool_(),
    }
    schema = pyarrow.schema([(column, kinds[kind]) for column, kind in COLUMNS[name].items()])
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, save in (("parquet", parquet.write_table), ("csv", csv.write_csv)):
        aside = folder / f".{name}.{suffix}.{os.getpid()}"
        try:
            save(table, str(aside))
            os.replace(aside, folder / f"{name}.{suffix}")
        finally:
            aside.unlink(missing_ok=True)


def read(runs_table: Path) -> dict[str, Any]:
    """Every table beside `runs_table` (tables/runs.parquet) as a pandas DataFrame, by name.

    Counts come as floats (exact up to 9e15), so that a missing one is NaN. Raises UserError
    naming the file that is missing or no table.
    """
    import pandas

    found = {}
    for name, columns in COLUMNS.items():
        path = Path(runs_table).with_name(f"{name}.parquet")
        try:
            frame = pandas.read_parquet(path, columns=list(columns))
        except (OSError, ValueError, KeyError) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"{path}: is no table of a study ({first})") from None
        found[name] = _typed(name, frame)
    return found


def frames(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The same of rows that are not written yet, by table."""
    import pandas

    return {
        name: _typed(name, pandas.DataFrame(rows[name], columns=list(columns)))
        for name, columns in COLUMNS.items()
    }


def _typed(name: str, frame):
    dtypes = {"count": "float64", "real": "float64", "flag": "boolean", "text": "object"}
    return frame.astype({column: dtypes[kind] for column, kind in COLUMNS[name].items()})


def own_ladder(frames: dict[str, Any]) -> dict[str, Any]:
    """The same tables with the study's own ladder alone: models are compared that were trained on
    one text by one recipe. What was trained beside it, fine-tuned or fused is compared with it, by
    itself."""
    kept = dict(frames)
    for name in ("trainings", "curves", *EVALUATED):
        kept[name] = frames[name][frames[name]["data"].isna()]
    for name in EVALUATED:
        kept[name] = kept[name][kept[name]["state"].isna() & as_trained(kept[name])]
    for name in PROBED:
        kept[name] = frames[name][frames[name]["members"].isna()]
    trainings = kept["trainings"]
    kept["trainings"] = trainings[trainings["role"] == "ladder"]
    beside = set(trainings["run"]) - set(kept["trainings"]["run"])
    kept["curves"] = kept["curves"][~kept["curves"]["run"].isin(beside)]
    return {name: frame.reset_index(drop=True) for name, frame in kept.items()}


def as_trained(frame):
    """Which rows of a table of evaluations are of models as they were trained or loaded, on what
    all are asked: neither fine-tuned nor fused, and no base on the task of a fine-tuning."""
    return frame["finetune"].isna() & frame["fuse"].isna() & frame["before"].isna()
