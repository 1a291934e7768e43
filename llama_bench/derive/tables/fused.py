"""Rows of one fusion: what it lost, what its members lost, and the curves that it measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import study_tables
from llama_bench.derive.tables.study_tables import Row

_FUSED = ("budget", "seed", "fuse", "method")
_ASKED = ("method", "weighting", "temperature")


def rows(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    """Of the tables `fusions`, `fusion_members`, `fusion_lines` and `fusion_growth`."""
    spec, members = entry.record.spec, result.get("members") or []
    asked = {name: spec.get(name) for name in _ASKED}
    about = entry.about(*_FUSED) | {"method": spec.get("method")}
    joined = result.get("joined")
    whole = study_tables.picked("fusions", result, but=("members", "joined", "control", *_ASKED))
    whole |= {"members": len(spec.get("members") or []), "best_loss": _least(members)}
    whole |= {"joined": None if joined is None else ", ".join(map(str, joined))}
    whole |= {"status": entry.status, "reason": entry.record.reason}
    whole |= {"seconds_total": entry.record.seconds.get("total")}
    whole |= {"control": entry.labels.get("control")}
    measured = result.get("control") or {}
    whole |= {f"control_{name}": value for name, value in measured.items()}
    yield "fusions", study_tables.row("fusions", **whole | asked | about)
    for place, member in enumerate(members):
        values = study_tables.picked("fusion_members", member, but=("run",))
        values |= {"place": place, "made_by": member.get("verb"), "member": called(member)}
        yield _part("fusion_members", values, about)
    for table, key in (("fusion_lines", "line"), ("fusion_growth", "growing")):
        for point in result.get(key) or []:
            values = study_tables.picked(table, point) | {"related": result.get("related")}
            yield _part(table, values, about)


def called(member: dict[str, Any]) -> str | None:
    """The id of the run that made a member, or what names one trained elsewhere: the digest of its
    folder, or repository@revision."""
    return member.get("run") or member.get("pretrained")


def _least(members: list[dict[str, Any]]) -> float | None:
    return min((row["loss"] for row in members if row.get("loss") is not None), default=None)


def _part(table: str, values: dict[str, Any], about: dict[str, Any]) -> Row:
    return table, study_tables.row(table, **values, **study_tables.picked(table, about))


def laws(growth: list[dict[str, Any]]) -> Iterator[Row]:
    """Rows of `merging_laws`: the law of each run that was grown, from its rows of the growth."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in growth:
        if row["loss"] is not None:
            runs[row["run"]].append(row)
    for points in runs.values():
        from llama_bench.derive.laws import merging  # dear to import, and rarely needed

        found = merging.fit(*([row[name] for row in points] for name in ("members", "loss")))
        about = study_tables.picked("merging_laws", points[0])
        about |= {"status": found.status, "why": found.why or None, "points": len(points)}
        for name, value in found.values.items():
            low, high = found.intervals.get(name, (None, None))
            ends = {"parameter": name, "value": value, "low": low, "high": high}
            yield "merging_laws", study_tables.row("merging_laws", **about, **ends)
        if not found.values:
            yield "merging_laws", study_tables.row("merging_laws", **about)
