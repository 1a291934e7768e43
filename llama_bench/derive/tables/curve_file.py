"""A run's loss curve: the points of its curve.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import study_tables
from llama_bench.fields import UserError


def rows(entry: Entry, table: str, along: str, about: dict[str, Any]) -> Iterator[study_tables.Row]:
    """A row of `table` per point, by its column `along`, each with what of `about` the table has;
    none where the run left no curve."""
    path = entry.folder / "curve.csv"
    if not path.exists():
        return
    about = study_tables.picked(table, about)
    with open(path, encoding="utf-8", newline="") as file:
        for line, point in enumerate(csv.DictReader(file), start=2):
            try:
                found = {name: _number(text) for name, text in point.items()}
                if found[along] is None:
                    raise ValueError(f"{along} are missing")
                found = study_tables.picked(table, found)
                yield table, study_tables.row(table, **found, **about)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path}: line {line} is no point of a loss curve ({error}); "
                    "delete the run's folder to make it again"
                ) from None


def _number(text: str) -> float | None:
    value = float(text) if text.strip() else None
    return value if value is not None and abs(value) < float("inf") else None
