"""From the records of `probe` and `limits` to the rows of their tables.

`speeds` keeps every repeat with the device's readings at its time, `memory` what a cell took,
`cells` what its repeats say together; what was refused stands there with its status, and among
the failures once for each reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import failures, repeats, roofline, study_tables
from llama_bench.derive.tables.study_tables import Row

_REPEATED = ("processor_seconds", "clock_hertz", "temperature_celsius", "power_watts", "joules")
_STARTED = ("import_seconds", "load_seconds", "first_token_seconds")
_MEASURED = ("ok", "ok, busy")
_FEW = 2  # places named where one reason holds for them all
_RENEWED = {"nvml": 0.1}  # seconds between two steps of an energy counter; RAPL's are far shorter
_STEP_SHARE = 0.02  # of a cell's energy that one step may be, for the sum to be told


def limits(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    device, vendor = result.get("device") or {}, result.get("vendor") or {}
    if entry.status != "ok":
        return
    values = study_tables.picked("limits", result, but=("device", "vendor"))
    values |= study_tables.picked("limits", device)
    values |= {f"vendor_{name}": value for name, value in vendor.items()}
    about = {"run": entry.id, "device": _called(device), "device_kind": device.get("kind")}
    precision = entry.record.spec.get("precision")
    yield "limits", study_tables.row("limits", **values | about, precision=precision)


def rows(entry: Entry, result: dict[str, Any]) -> Iterator[Row]:
    """Of the tables `speeds`, `memory`, `cells`, `largest_batches` and `failures`."""
    way = _way(entry, result)
    whole = {name: result.get(name) for name in ("weight_bytes", "baseline_bytes", "peak_source")}
    refused: dict[tuple[str, str | None], list[str]] = {}
    for cell in result.get("cells", []):
        status = cell.get("status", "ok")
        memory = study_tables.picked("memory", cell)
        if status in _MEASURED:
            memory["status"] = "ok"  # which a busy device does not touch
        yield "memory", study_tables.row("memory", **memory | whole | way)
        yield "cells", _cell(entry, result, cell, way)
        yield from _repeats(cell, way, (result.get("device") or {}).get("threads"))
        if status not in _MEASURED:
            place = "{phase}, batch {batch}, context {context}".format(**cell)
            refused.setdefault((status, cell.get("reason")), []).append(place)
    for row in result.get("largest_batches") or []:
        values = study_tables.picked("largest_batches", row) | way
        yield "largest_batches", study_tables.row("largest_batches", **values)
        if row["status"] != "ok":
            place = "largest batch, {phase}, context {context}".format(**row)
            refused.setdefault((row["status"], row.get("reason")), []).append(place)
    for (status, reason), places in refused.items():
        what = "; ".join(places) if len(places) <= _FEW else f"{len(places)} cells"
        yield failures.row(entry, what, status, reason)


def _way(entry: Entry, result: dict[str, Any]) -> dict[str, Any]:
    """Which model was probed, on what device and how: the columns of every row."""
    spec = entry.record.spec
    return entry.about("fuse", "members") | {
        "device": _called(result.get("device") or {}),
        "engine": spec.get("engine") or "transformers",
        "precision": spec.get("precision") or "float32",
    }


def _called(device: dict[str, Any]) -> str | None:
    return device.get("name") or device.get("kind")


def _cell(entry: Entry, result, cell: dict[str, Any], way) -> dict[str, Any]:
    found = cell.get("seconds") or []
    device = result.get("device") or {}
    values = study_tables.picked("cells", cell, but=("sampling_seconds",))
    values |= way | study_tables.picked("cells", result, but=("device", "engine", "members"))
    values |= {"device_kind": device.get("kind"), "threads": device.get("threads")}
    rounds = cell.get("round_repeats")
    values |= repeats.summary(found, rounds, alone(cell, device.get("threads")))
    values |= roofline.work(cell, result, entry.record.spec)
    for column, times in (
        ("sampling_seconds", cell.get("sampling_seconds")),
        ("median_processor_seconds", cell.get("processor_seconds")),
    ):
        values[column] = repeats.summary(times or []).get("median_seconds")
    if found and cell.get("tokens") and cell["phase"] != "load":
        tokens = cell["tokens"]
        values["tokens_per_second"] = tokens / values["median_seconds"]
        mean, spread = repeats.mean_rate([tokens / seconds for seconds in found if seconds])
        values |= {"mean_tokens_per_second": mean, "tokens_per_second_deviation": spread}
        values |= _energy(cell, result)
    return study_tables.row("cells", **values)


def _energy(cell: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Joules per token of the sum over all repeats, for a counter moves in steps; of repeats that
    hold too few of these, why there is none."""
    joules, seconds = cell.get("joules"), sum(cell["seconds"])
    if not joules or None in joules or sum(joules) <= 0:
        return {}
    renewed = _RENEWED.get(result.get("energy_source"), 0.0)
    least = renewed / _STEP_SHARE
    if seconds < least:
        return {
            "energy_missing": f"the counter is renewed every {renewed:g} s, so repeats that last "
            f"less than {least:g} s in all say little; raise probe.seconds"
        }
    return {"joules_per_token": sum(joules) / (cell["tokens"] * len(cell["seconds"]))}


def alone(cell: dict[str, Any], threads: int | None) -> list[float] | None:
    """Of a cell that was timed beside other programs: what its repeats took of each thread's
    processor, or, where nobody counted that, their seconds; None of a quiet one."""
    if not cell.get("busy"):
        return None
    spent = cell.get("processor_seconds")
    return [each / threads for each in spent] if spent and threads else cell["seconds"]


def _repeats(cell: dict[str, Any], way, threads: int | None) -> Iterator[Row]:
    place = {name: cell[name] for name in ("phase", "batch", "context", "tokens")}
    place |= {"threads": threads, "busy": cell.get("busy")}
    told = [name for name in (*_REPEATED, *_STARTED) if cell.get(name)]
    for repeat, seconds in enumerate(cell.get("seconds") or []):
        writes = cell["tokens"] and seconds and cell["phase"] != "load"
        values = {"repeat": repeat, "seconds": seconds}
        values |= {"tokens_per_second": cell["tokens"] / seconds if writes else None}
        values |= {name: cell[name][repeat] for name in told}
        yield "speeds", study_tables.row("speeds", **values | place | way)
