"""The forecasts of task scores, in words and as a table: what was foretold, and how it came out.

A forecast counts as one of a loss does (ledgertext.py): only if it was written before its training
began, and the training was then evaluated.
"""

from __future__ import annotations

import re
from typing import Any

from llama_bench.derive.tables import main_metric
from llama_bench.derive.words import ledgertext, scores, show

KEYS = ("forecast", "run", "task", "metric", "filter")
SHOWN = (0.5, 0.95)  # levels, of which the report's table has room for two


def points(forecasts) -> list[dict[str, Any]]:
    """One entry per forecast file, held-out training and task, as `ledgertext.points` has them."""
    named = forecasts.rename(columns={"value": "loss"})
    return ledgertext.points(named.sort_values("task", kind="stable"), KEYS)


def words(ledger: list[dict[str, Any]]) -> list[str]:
    """Sentences on all forecasts of scores; none of none."""
    if not ledger:
        return []
    scored = [point for point in ledger if point["state"] == "scored"]
    made = [point for point in ledger if point["state"] != "none"]
    first = ledger[0]
    text = (
        f"Task scores are forecast in the same way, from those of {first['runs_used']:.0f} other "
        "runs: for every task the back-test takes a "
        "sigmoid of compute (direct), compute to the loss of the task and that to its score "
        "(two_step), or no change where neither is better (constant); chrF, BLEU and ROUGE as "
        "parts of the best score there is, bits per byte as a loss."
    )
    said = [text]
    if scored:
        level = max(set.intersection(*(set(point["intervals"]) for point in scored)))
        inside = sum(bool(point["intervals"][level]["inside"]) for point in scored)
        shares = [p for p in scored if p["metric"] in main_metric.SHARES]
        off = ""
        if shares:
            mean = 100 * sum(abs(point["error"]) for point in shares) / len(shares)
            off = f"; shares came out {show.digits(mean, 2)} percentage points off on average"
        said.append(
            f"Of {len(scored)} scored forecasts, {inside} lay in their {show.percent(level)} "
            f"interval{off}."
        )
    late = sum(point["state"] == "late" for point in ledger)
    if late:
        said.append(
            f"{late} of {len(ledger)} were written after the run began, and count for none."
        )
    none = {scores.task_name(p["task"]): _why(p) for p in ledger if p["state"] == "none"}
    if none:
        whole = "No forecast" if made else "No forecast of a score could be made"
        reasons = dict.fromkeys(none.values())
        listed = [
            f"{show.listed(task for task in none if none[task] == why)} ({why})" for why in reasons
        ]
        said.append(f"{whole}: {show.listed(listed)}.")
    return said


def _why(point: dict[str, Any]) -> str:
    """Why there is no forecast, the metric in words."""
    named = scores.metric_name(point["metric"])
    return re.sub(rf"\b{re.escape(point['metric'])}\b", named, point["why"])


def table(ledger: list[dict[str, Any]]) -> dict[str, Any] | None:
    """As shown text: {"levels", "largest": rows of each model's largest budget, "rest"}."""
    known = [point for point in ledger if point["state"] != "none"]
    if not known:
        return None
    most = {p["model"]: max(q["tokens"] for q in known if q["model"] == p["model"]) for p in known}
    rows = [(point["tokens"] == most[point["model"]], _row(point)) for point in known]
    return {
        "levels": [show.percent(level) for level in SHOWN],
        "largest": [row for largest, row in rows if largest],
        "rest": [row for largest, row in rows if not largest],
    }


def _row(point: dict[str, Any]) -> dict[str, Any]:
    intervals = []
    for level in SHOWN:
        entry = point["intervals"].get(level)
        shown = show.NOTHING if entry is None else show.interval(entry["low"], entry["high"])
        intervals.append((shown, "" if entry is None else show.held(entry["covered"])))
    measured = show.plus_minus(point["loss"], scores.WIDTH * (point["standard_error"] or 0))
    return {
        "model": point["model"],
        "tokens": show.short(point["tokens"]),
        "task": scores.task_name(point["task"]),
        "metric": scores.metric_name(point["metric"]),
        "law": (point["law"], "" if point["status"] == "converged" else point["status"]),
        "point": show.digits(point["point"]),
        "intervals": intervals,
        "value": measured,
        "error": _signed(point["error"]),
        "state": point["state"],
        "verdict": verdict(point),
    }


def _signed(error) -> str:
    if show.absent(error):
        return show.NOTHING
    if abs(error) < 1e-12:  # but for rounding
        return "0"
    return f"{'+' if error > 0 else '−'}{show.digits(abs(error), 2)}"


def verdict(point: dict[str, Any]) -> str:
    """How a forecast stands: inside the narrowest interval that holds the score, or why not yet."""
    if point["state"] != "scored":
        return ledgertext.STATES[point["state"]]
    inside = [level for level, entry in point["intervals"].items() if entry["inside"]]
    where = f"inside the {show.percent(min(inside))}" if inside else "outside the "
    where += "" if inside else show.percent(max(point["intervals"]))
    return f"{where} interval"
