"""From the records of a study's runs to its tables: `collect SPEC TABLES/runs.parquet`.

The spec lists every run of the study with its labels (the study's own names: model, budget, seed,
suite, which are no part of a run's identity), so the same runs can stand in several studies. A run
without a record is listed as such; nothing else is made up for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_bench import records
from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import (
    fused,
    fused_scores,
    gains,
    ledger,
    pairs,
    roofline,
    rows,
    screen,
    study_tables,
    task_ladder,
    tradeoffs,
    transfer,
    tuned,
)
from llama_bench.fields import UserError


def run(spec: str, output: Path, inputs: list[Path]) -> None:
    """Write every table of the study beside `output`, which is the table of its runs.

    `spec` is JSON, or the path of a JSON file: {"study", "runs": [{"id", "verb", "path",
    "labels"}], "config", "forecasts": [paths of forecast files]}. `inputs` are the records and
    serve the workflow's order only. Raises UserError naming the record or forecast file that is
    damaged, or the key that is missing.
    """
    asked = spec_of(spec, "collect", "study", "runs")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in study_tables.COLUMNS}
    entries = [_entry(given) for given in asked["runs"]]
    for entry in entries:
        for table, row in _rows(entry):
            found[table].append(row)
    price = ((asked.get("config") or {}).get("probe") or {}).get("price_per_hour")
    roofline.held_against(found["cells"], found["limits"], price)
    found["pairs"] = [row for _, row in pairs.rows(entries)]
    found["screen"] = [row for _, row in screen.rows(found["scores"], found["pairs"])]
    found["task_ladder"] = task_ladder.rows(found["ladder"], found["scores"], entries)
    tunings = (*tuned.absent(entries), *transfer.rows(found["finetunings"]))
    for table, row in (*gains.rows(entries), *tunings):
        found[table].append(row)
    for table, row in (*fused.laws(found["fusion_growth"]), *fused_scores.rows(entries)):
        found[table].append(row)
    found["tradeoffs"] = [row for _, row in tradeoffs.rows(found)]
    known = {(entry.verb, entry.id): entry for entry in reversed(entries)}

    def run_of(verb: str, run: str) -> Entry:
        """Also one that the study asks for no more: what was forecast of it stays in the ledger."""
        path = f"results/runs/{verb}/{run}/record.json"
        return known.get((verb, run)) or _entry({"id": run, "verb": verb, "path": path})

    for path in asked.get("forecasts") or []:
        for table, row in ledger.rows(Path(path), run_of):
            found[table].append(row)
    # runs last: it is the declared output, so whoever sees it sees the others too
    for name in sorted(found, key=lambda name: name == "runs"):
        study_tables.write(output.parent, name, found[name])


def spec_of(text: str, verb: str, *keys: str) -> dict[str, Any]:
    """The spec of a deriving step, as JSON text or the path of a JSON file that holds it."""
    source = f"{verb} spec"
    if not text.lstrip().startswith("{"):
        source, path = text, Path(text)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source}: is not JSON ({error})") from None
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{source}: {key}: is missing; add it")
    return content


def _entry(given: dict[str, Any]) -> Entry:
    try:
        place = {key: given[key] for key in ("id", "verb", "path")}
    except (KeyError, TypeError):
        raise UserError(f"collect spec: runs: {given!r} needs id, verb and path") from None
    if place["verb"] not in rows.VERBS:
        raise UserError(f"collect spec: runs: {place['id']}: unknown verb {place['verb']!r}")
    path = Path(place["path"])
    record = records.read(path) if path.exists() else None
    if record is not None and (record.id, record.verb) != (place["id"], place["verb"]):
        raise UserError(
            f"{path}: is the record of {record.verb} {record.id}, not of {place['id']}; "
            "delete this folder to make the run again"
        )
    return Entry(**place, labels=given.get("labels") or {}, record=record)


def _rows(entry: Entry) -> list[rows.Row]:
    """A record that keeps the outer layout but not its verb's own is named, like a damaged one."""
    try:
        return list(rows.of(entry))
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{entry.path}: holds no result that `{entry.verb}` writes ({error!r}); "
            "delete the run's folder to make it again"
        ) from None
