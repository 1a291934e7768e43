"""The ledger of forecasts as rows: what was foretold, and what the held-out runs then measured.

A forecast that was written after its training began is none, whatever it says; `before` tells, of
scores too. Old forecasts stay in the ledger: each file of the study has its rows.
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

RunOf = Callable[[str, str], Entry]


def rows(path: Path, run_of: RunOf) -> Iterator[Row]:
    """Rows of `forecasts` or `score_forecasts`, and of `candidates`, from one forecast file; none
    where it is not there.

    `run_of` gives the run of a verb and id. Raises UserError naming the file if it is damaged.
    """
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "tasks" in content:
            found = [row for task in content["tasks"] for row in _of_task(content, task, run_of)]
        else:
            found = [*_forecasts(content, run_of), *_candidates(content["id"], None, content)]
    except UserError:
        raise
    except (OSError, ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: is no forecast file ({error!r}); delete it to leave this forecast out"
        ) from None
    yield from found


def _forecasts(content: dict[str, Any], run_of: RunOf) -> Iterator[Row]:
    head = {
        "forecast": content["id"],
        "runs_used": len(content["runs_used"]),
        **{name: content.get(name) for name in ("written", "law", "status", "why")},
    }
    for point in content["points"]:
        about = {name: point[name] for name in ("run", "model", "params", "tokens", "flops")}
        measured = _measured(run_of("train", point["run"]), content.get("written"))
        for level in content["levels"]:
            said = _said(point, level)
            scored = _scored(said, measured["loss"])
            yield (
                "forecasts",
                study_tables.row("forecasts", **head, **about, **said, **measured, **scored),
            )


def _of_task(content: dict[str, Any], task: dict[str, Any], run_of: RunOf) -> Iterator[Row]:
    head = {
        "forecast": content["id"],
        "written": content.get("written"),
        "runs_used": len(content["runs_used"]),
        **{name: task.get(name) for name in ("task", "metric", "filter", "law", "status", "why")},
    }
    for point in task["points"]:
        names = ("run", "evaluation", "model", "params", "tokens", "flops")
        about = {name: point[name] for name in names}
        training = _measured(run_of("train", point["run"]), content.get("written"))
        training.pop("loss")
        evaluation = run_of("evaluate", point["evaluation"])
        scored = {"run_status": evaluation.status} | _score(evaluation, task)
        for level in content["levels"]:
            said = _said(point, level)
            values = head | about | said | training | scored
            if said["point"] is not None and scored.get("value") is not None:
                values["error"] = said["point"] - scored["value"]
                values["inside"] = said["low"] <= scored["value"] <= said["high"]
            yield "score_forecasts", study_tables.row("score_forecasts", **values)
    yield from _candidates(content["id"], task["task"], task)


def _score(evaluation: Entry, task: dict[str, Any]) -> dict[str, Any]:
    """The value that the held-out evaluation has of the task's metric, and its standard error."""
    found = evaluation.record.result.get("scores", []) if evaluation.status == "ok" else []
    keys = ("task", "metric", "filter")
    for score in found:
        if all(score[key] == task[key] for key in keys):
            return {name: score.get(name) for name in ("value", "standard_error")}
    return {}


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


def _candidates(forecast: str, task: str | None, content: dict[str, Any]) -> Iterator[Row]:
    for candidate in (content.get("choice") or {}).get("table") or []:
        values = study_tables.picked("candidates", candidate, but=("folds",))
        able = [f for f in candidate["folds"] if f.get("mean_error_percent") is not None]
        values |= {"forecast": forecast, "task": task, "folds": len(able)}
        yield "candidates", study_tables.row("candidates", **values)
