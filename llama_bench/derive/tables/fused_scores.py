"""Scores of fused models, each less that of the best member on the same items.

Of the members that answered the same tasks in the same way the one with the least held-out loss
counts: whoever has the members and no test would choose it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import fused, gains, study_tables
from llama_bench.derive.tables.study_tables import Row

_MODEL = ("train", "finetune", "fuse", "pretrained")
_FUSED = ("budget", "seed", "fuse", "method", "suite")


def rows(entries: list[Entry]) -> Iterator[Row]:
    """Rows of `fusion_scores` from the fusions and the evaluations among `entries`."""
    fusions = {e.id: e for e in entries if e.verb == "fuse" and e.status == "ok"}
    asked = [e for e in entries if fusions and e.verb == "evaluate" and e.status == "ok"]
    known = {(_model(entry), _question(entry)): entry for entry in reversed(asked)}
    of_items = gains.read_once()
    for entry in asked:
        fusion = fusions.get(entry.record.spec.get("fuse"))
        member = fusion and _best(fusion, _question(entry), known)
        for mine, its, difference in gains.compared(entry, member, of_items) if member else ():
            values = study_tables.picked("fusion_scores", mine, but=("standard_error", "items"))
            values |= study_tables.picked("fusion_scores", entry.about(*_FUSED))
            values |= {"member": member.id, "member_value": its["value"]}
            values |= {"value_standard_error": mine.get("standard_error")}
            values |= study_tables.picked("fusion_scores", difference)
            yield "fusion_scores", study_tables.row("fusion_scores", **values)


def _best(fusion: Entry, question: str, known: dict[tuple, Entry]) -> Entry | None:
    members = [m for m in fusion.record.result["members"] if m.get("loss") is not None]
    for member in sorted(members, key=lambda member: member["loss"]):
        if (fused.called(member), question) in known:
            return known[fused.called(member), question]
    return None


def _model(entry: Entry) -> str:
    """The run that made the model which was asked, or what names one trained elsewhere."""
    spec = entry.record.spec
    elsewhere = spec.get("pretrained") or {}
    named = elsewhere.get("digest") or f"{elsewhere.get('repo')}@{elsewhere.get('revision')}"
    return next((spec[verb] for verb in _MODEL[:3] if spec.get(verb)), named)


def _question(entry: Entry) -> str:
    """All that was asked but of whom."""
    spec: dict[str, Any] = entry.record.spec
    return json.dumps({k: v for k, v in spec.items() if k not in _MODEL and v}, sort_keys=True)
