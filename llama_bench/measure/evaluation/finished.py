"""What a task's evaluation gave, kept until the run is done, so that a run that was stopped goes on
with the tasks that are left.

It lies beside the record, undeclared, under the digest of everything that the answer depends on:
the run's spec (which holds what wrote the tasks), the task's name with what its group says of it,
and lm-eval's version.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llama_bench import records
from llama_bench.specs import EvaluateSpec

FOLDER = "finished-tasks"
PARTS = ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples")


@dataclass
class Finished:
    """Rows of one task (or of groups), lm-eval's own result without its samples, and the items;
    `failed` are metrics that it should have and has not."""

    items: pa.Table
    scores: list[dict] = field(default_factory=list)
    answers: list[dict] = field(default_factory=list)
    constructions: list[dict] = field(default_factory=list)
    own: dict = field(default_factory=dict)
    failed: list[dict] = field(default_factory=list)


class Kept:
    """The finished tasks of one run, in its folder."""

    def __init__(self, spec: EvaluateSpec, folder: Path):
        self.spec, self.folder = spec, folder / FOLDER

    def load(self, asked: str) -> Finished | None:
        """None where the task was not finished: the table is written first, the rows last."""
        path = self._path(asked)
        try:
            rows = json.loads(path.read_text())
            return Finished(pq.ParquetFile(path.with_suffix(".parquet")).read(), **rows)
        except (OSError, ValueError, TypeError):
            return None

    def save(self, asked: str, finished: Finished) -> None:
        path = self._path(asked)
        path.parent.mkdir(exist_ok=True)
        write_table(finished.items, path.with_suffix(".parquet"))
        rows = {key: value for key, value in vars(finished).items() if key != "items"}
        records.write_text(path, json.dumps(rows, default=str))

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, asked: str) -> Path:
        whole = f"{self.spec.canonical()}:{asked}:{metadata.version('lm-eval')}"
        return self.folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:16]}.json"


def write_table(table: pa.Table, path: Path) -> None:
    """Whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, aside, compression="zstd")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
