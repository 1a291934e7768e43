"""What was asked and gave no number, as a row: a run, a task, a probed cell."""

from __future__ import annotations

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import study_tables
from llama_bench.derive.tables.study_tables import Row


def row(entry: Entry, what: str, status: str, reason: str | None) -> Row:
    said = {"what": what, "status": status, "reason": reason, "log": entry.log}
    about = {"run": entry.id, "verb": entry.verb, "model": entry.labels.get("model")}
    return "failures", study_tables.row("failures", **about, **said)
