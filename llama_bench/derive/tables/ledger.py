"""The ledger of forecasts as rows: what was foretold, and what the held-out runs then measured.

A forecast that was written after its run began is none, whatever it says; `before` tells. Old
forecasts stay in the ledger: each file of the study has its rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_bench.derive.entry import Entry
from llama_bench.derive.tables import study_tables
from llama_bench.derive.tables.study_tables import Row
from llama_bench.fields import UserError


def rows(path: Path, training: Callable[[str], Entry]) -> Iterator[Row]:
    """Rows of `forecasts` and `candidates` from one forecast file; none where it is not there.

    `training` gives the held-out run of an id. Raises UserError naming the file if it is damaged.
    """
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [*_forecasts(content, training), *_candidates(content)]
    except UserError:
        raise
    except (OSError, ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: is no forecast file ({error!r}); delete it to leave this forecast out"
        ) from None
    yield from found


def _forecasts(content: dict[str, Any], training: Callable[[str], Entry]) -> Iterator[Row]:
    head = {
        "forecast": content["id"],
        "runs_used": len(content["runs_used"]),
        **{name: content.get(name) for name in ("written", "law", "status", "why")},
    }
    for point in content["points"]:
        about = {name: point[name] for name in ("run", "model", "params", "tokens", "flops")}
        measured = _measured(training(point["run"]), content.get("written"))
        for level in content["levels"]:
            said = _said(point, level)
            scored = _scored(said, measured["loss"])
            yield (
                "forecasts",
                study_tables.row("forecasts", **head, **about, **said, **measured, **scored),
            )


def _said(point: dict[str, Any], level: float) -> dict[str, Any]:
    """What one point says at one level; an end that reaches infinity stands in the file as null."""
    percent = f"{100 * level:.3g}"
    said = {"level": level, "point": point.get("point"), "covered": point.get(f"covered_{percent}")}
    if said["point"] is None:
        return said
    for end, endless in (("low", -math.inf), ("high", math.inf)):
        value = point[f"{end}_{percent}"]
        said[end] = endless if value is None else value
    return said


def _measured(run: Entry, written: float | None) -> dict[str, Any]:
    record = run.record
    began = record.provenance.get("began") if record else None
    known = began is not None and written is not None
    return {
        "run_status": run.status,
        "loss": record.result.get("loss") if run.status == "ok" else None,
        "before": written < began if known else None,
        **{name: run.labels.get(name) for name in ("budget", "seed")},
    }


def _scored(said: dict[str, Any], loss: float | None) -> dict[str, Any]:
    if said["point"] is None or loss is None:
        return {}
    return {
        "error_percent": 100 * (said["point"] / loss - 1),
        "inside": said["low"] <= loss <= said["high"],
    }


def _candidates(content: dict[str, Any]) -> Iterator[Row]:
    for candidate in (content.get("choice") or {}).get("table") or []:
        values = study_tables.picked("candidates", candidate, but=("folds",))
        able = [f for f in candidate["folds"] if f.get("mean_error_percent") is not None]
        values |= {"forecast": content["id"], "folds": len(able)}
        yield "candidates", study_tables.row("candidates", **values)
