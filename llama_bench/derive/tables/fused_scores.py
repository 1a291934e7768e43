"""Scores of fused models, each less that of the best member on the same items.

Of the members that answered the same tasks in the same way the one with the least held-out loss
counts: whoever has the members and no test would choose it. The one that is best at the very task
stands beside it: of members that were tuned on different tasks it is the one to beat.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import fused, gains, study_tables
from llama_bench.derive.tables.study_tables import Row

_MODEL = ("train", "finetune", "fuse", "pretrained")
_FUSED = ("budget", "seed", "fuse", "method", "suite")
_DIVISION = ("seed", "validation", "test")


def rows(entries: list[Entry]) -> Iterator[Row]:
    """Rows of `fusion_scores` from the fusions, their controls and the evaluations among
    `entries`."""
    fusions = {e.id: e for e in entries if e.verb == "fuse" and e.status == "ok"}
    fusions |= {e.labels["control"]: e for e in fusions.values() if e.labels.get("control")}
    asked = [e for e in entries if fusions and e.verb == "evaluate" and e.status == "ok"]
    known = {(_model(entry), _question(entry)): entry for entry in reversed(asked)}
    runs, of_items = {(e.verb, e.id): e for e in entries}, gains.read_once()
    for entry in asked:
        fusion = fusions.get(_model(entry)) if entry.labels.get("fuse") else None
        members = _asked(fusion, _question(entry), known) if fusion else []
        for values in _compared(entry, members, of_items):
            values |= study_tables.picked("fusion_scores", entry.about(*_FUSED))
            values |= {"tasks_cross": _cross(fusion, runs)}
            yield "fusion_scores", study_tables.row("fusion_scores", **values)


def _compared(entry: Entry, members: list[Entry], of_items) -> Iterator[dict[str, Any]]:
    """Each metric, and how it differs from that of the first member and of the best at it."""
    beside = defaultdict(list)
    for member in members:
        for mine, its, difference in gains.compared(entry, member, of_items):
            key = mine["task"], mine.get("filter"), mine["metric"]
            beside[key].append((mine, its, difference, member.id))
    for found in beside.values():
        mine, first, difference, member = found[0]
        values = study_tables.picked("fusion_scores", mine, but=("standard_error", "items"))
        values |= {"value_standard_error": mine.get("standard_error")}
        values |= study_tables.picked("fusion_scores", difference)
        sign = -1 if mine.get("higher_is_better") is False else 1
        best = max(found, key=lambda each: sign * each[1]["value"])
        values |= {"member": member, "member_value": first["value"]}
        values |= {"best_member_value": best[1]["value"]}
        values |= {f"best_{name}": best[2][name] for name in ("difference", "standard_error")}
        yield values


def _cross(fusion: Entry, runs: dict[tuple[str, str], Entry]) -> bool:
    """Whether one task of the members may be tested on documents that another's examples are from:
    those of rows are divided for each task, and held-out documents by shares and seed."""
    members = (("finetune", member.get("run")) for member in fusion.record.result["members"])
    tuned = [runs[key].record for key in members if key in runs]
    examples = {("examples", record.spec.get("examples")) for record in tuned if record}
    specs = [runs[key].record.spec for key in sorted(examples) if key in runs and runs[key].record]
    return any(
        _made_from(one) == _made_from(other)
        and (one.get("corpus") or any(one.get(name) != other.get(name) for name in _DIVISION))
        for one, other in combinations(specs, 2)
    )


def _made_from(spec: dict[str, Any]):
    return spec.get("corpus") or spec.get("data")


def _asked(fusion: Entry, question: str, known: dict[tuple, Entry]) -> list[Entry]:
    """The members that were asked the same, the least loss first."""
    members = [m for m in fusion.record.result["members"] if m.get("loss") is not None]
    names = [fused.called(member) for member in sorted(members, key=lambda m: m["loss"])]
    return [known[name, question] for name in names if (name, question) in known]


def _model(entry: Entry) -> str:
    """The run that made the model which was asked, or what names one trained elsewhere."""
    spec = entry.record.spec
    elsewhere = spec.get("pretrained") or {}
    named = elsewhere.get("digest") or f"{elsewhere.get('repo')}@{elsewhere.get('revision')}"
    return next((spec[verb] for verb in _MODEL[:3] if spec.get(verb)), named)


def _question(entry: Entry) -> str:
    """All that was asked but of whom; which of the held-out tasks' items is gains.py's matter."""
    spec: dict[str, Any] = entry.record.spec
    but = (*_MODEL, "held_out")
    return json.dumps({k: v for k, v in spec.items() if k not in but and v}, sort_keys=True)
