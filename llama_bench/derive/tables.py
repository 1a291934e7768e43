"""The study's tables: their columns and types, and how they lie on disk.

Long form: one row per thing measured, every row saying of which run and which model it is, so
that a table can be read alone. Parquet is the truth, the CSV beside it an export for people and
other tools. Missing is null. All tables are always written, with their columns even where there
is nothing to tell, and equal rows give equal bytes (pyarrow alone: no index, no date).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llama_bench.fields import UserError

_RUN = {"run": "text", "model": "text", "origin": "text"}
_TRAINED = {"budget": "count", "seed": "count"}
_PARAMETERS = {
    "parameters_all": "count",
    "parameters_without_embeddings": "count",
    "parameters_in_matrix_products": "count",
}
_CELL = {"phase": "text", "batch": "count", "context": "count"}

# fmt: off
# table -> column -> kind. `run` is the id of a run, `model` the study's name for it, `origin`
# trained or pretrained; every other name is explained, with its unit, in docs/protocol.md.
COLUMNS: dict[str, dict[str, str]] = {
    # one row per run that the study asks for
    "runs": {
        "id": "text", "verb": "text", "model": "text", "origin": "text", **_TRAINED,
        "suite": "text", "status": "text", "reason": "text", "seconds_startup": "real",
        "seconds_total": "real", "threads": "count", "host": "text", "path": "text", "log": "text",
    },
    # one row per run that has a record: where and with what it was made
    "provenance": {
        "run": "text", "verb": "text", "host": "text", "system": "text", "processor": "text",
        "cores": "count", "memory_bytes": "count", "threads": "count", "python": "text",
        "packages": "text", "git_commit": "text", "git_changed": "flag", "began": "real",
        "command": "text",
    },
    # one row per training that ended, well or not
    "trainings": {
        **_RUN, **_TRAINED, "status": "text", "reason": "text", **_PARAMETERS,
        "tokens": "count", "steps": "count", "unique_tokens": "count", "trained_tokens": "count",
        "continued_from": "text", "flops_exact": "real", "flops_six_n_d": "real",
        "loss": "real", "bits_per_byte": "real", "train_loss": "real",
        "tokens_per_second": "real", "peak_bytes": "count", "threads": "count", "device": "text",
        "layers": "count", "width": "count", "heads": "count", "kv_heads": "count",
        "ffn_width": "count", "tied_embeddings": "flag", "context": "count", "batch": "count",
        "learning_rate": "real", "warmup_tokens": "count", "decay": "text", "decay_share": "real",
        "weight_decay": "real", "precision": "text", "ended_at_step": "count",
        "ended_at_loss": "real",
    },
    # the trainings that have a loss, in the form a law is fitted to: params are those without
    # embeddings, flops the exact count; the other counts beside them show what the choice does.
    # `fit` takes a column `budget` for one of compute, so that of tokens has its unit in its name
    "ladder": {
        "params": "count", "tokens": "count", "loss": "real", "flops": "real",
        "unique_tokens": "count", "token_budget": "count", "seed": "count",
        "params_all": "count", "params_in_matrix_products": "count", "flops_six_n_d": "real",
        "model": "text", "run": "text",
    },
    # one row per training and point of its loss curve
    "curves": {
        **_RUN, **_TRAINED, "parameters_without_embeddings": "count", "tokens": "count",
        "train_loss": "real", "validation_loss": "real", "learning_rate": "real",
    },
    # one row per model, task, metric and filter
    "scores": {
        **_RUN, **_TRAINED, **_PARAMETERS, "suite": "text", "task": "text", "metric": "text",
        "filter": "text", "value": "real", "standard_error": "real", "chance": "real",
        "higher_is_better": "flag", "items": "count", "version": "text", "shots": "count",
    },
    # one row per probed cell and repeat
    "speeds": {
        **_RUN, **_PARAMETERS, "device": "text", "threads": "count", **_CELL, "repeat": "count",
        "tokens": "count", "seconds": "real", "tokens_per_second": "real", "busy": "flag",
    },
    # one row per probed cell
    "memory": {
        **_RUN, **_PARAMETERS, "device": "text", **_CELL, "status": "text", "reason": "text",
        "peak_bytes": "count", "weight_bytes": "count", "baseline_bytes": "count",
        "kv_bytes": "count", "warmup_repeats": "count", "warmup_variation": "real", "load": "real",
    },
    # one row per model, prompt and way of decoding
    "samples": {
        **_RUN, **_TRAINED, **_PARAMETERS, "prompt": "text", "decoding": "text",
        "sample_seed": "count", "text": "text",
    },
    # one row per part of a prepared corpus
    "data": {
        "run": "text", "corpus": "text", "part": "text", "documents": "count", "bytes": "count",
        "tokens": "count", "near_duplicate_documents": "count", "unreadable_documents": "count",
        "vocab_size": "count", "bytes_per_token": "real", "corpus_sha256": "text",
    },
    # one row per task that was written from held-out documents, or could not be
    "tasks": {
        "run": "text", "task": "text", "items": "count", "metric": "text", "chance": "real",
        "higher_is_better": "flag", "description": "text", "left_out": "text",
    },
    # one row per forecast file, held-out training and level of the interval: what was foretold
    # (an endless interval ends at infinity), and what was then measured. `run_status` and `loss`
    # are the training's, `error_percent` is of the loss (above 0: foretold too high), `before` is
    # whether it was written before the training began; `covered` is the back-test's share
    "forecasts": {
        "forecast": "text", "written": "real", "law": "text", "status": "text", "why": "text",
        "runs_used": "count", "run": "text", "model": "text", **_TRAINED, "params": "count",
        "tokens": "count", "flops": "real", "point": "real", "level": "real", "low": "real",
        "high": "real", "covered": "real", "run_status": "text", "loss": "real",
        "error_percent": "real", "inside": "flag", "before": "flag",
    },
    # one row per forecast file, law and selection of runs that the back-test compared for it:
    # `score` is the mean error in % over the folds that all of them could forecast
    "candidates": {
        "forecast": "text", "law": "text", "within_percent": "real", "chosen": "flag",
        "score": "real", "mean_error_percent": "real", "mean_bias_percent": "real",
        "best_runs_error_percent": "real", "rows_hidden": "count", "folds": "count",
    },
    # one row per thing that was asked and gave no number: a run, a task, a probed cell
    "failures": {
        "run": "text", "verb": "text", "model": "text", "what": "text", "status": "text",
        "reason": "text", "log": "text",
    },
}
# fmt: on


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

    dtypes = {"count": "float64", "real": "float64", "flag": "boolean"}
    frames = {}
    for name, columns in COLUMNS.items():
        path = Path(runs_table).with_name(f"{name}.parquet")
        try:
            frame = pandas.read_parquet(path, columns=list(columns))
        except (OSError, ValueError, KeyError) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"{path}: is no table of a study ({first})") from None
        kinds = {column: dtypes[kind] for column, kind in columns.items() if kind != "text"}
        frames[name] = frame.astype(kinds)
    return frames
