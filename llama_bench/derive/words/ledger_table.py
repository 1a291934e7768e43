"""The ledger of forecasts as tables of the report: every held-out run, and every law compared."""

from __future__ import annotations

import time
from typing import Any

from llama_bench.derive.words import show
from llama_bench.derive.words.ledgertext import DIGITS, STATES, between

# columns of the table of candidates, after law and runs
COMPARED = (
    "Mean error on shared tests",
    "Mean error on its own tests",
    "Bias",
    "Its tests",
    "Runs hidden",
)


def table(ledger: list[dict[str, Any]], candidates) -> dict[str, Any] | None:
    """Of `ledgertext.points`, as shown text: {"levels", "compared": columns of the candidates,
    "seeds": whether they differ, "rows": one per forecast and held-out run, "files": one per
    forecast file, with its candidates}. None of no forecast."""
    if not ledger:
        return None
    levels = sorted({level for point in ledger for level in point["intervals"]})
    files = list(dict.fromkeys(point["forecast"] for point in ledger))
    return {
        "compared": COMPARED,
        "levels": [show.percent(level) for level in levels],
        "seeds": len({str(point["seed"]) for point in ledger}) > 1,
        "rows": [_row(point, levels) for point in ledger],
        "files": [_file(name, ledger, candidates) for name in files],
    }


def _row(point: dict[str, Any], levels: list[float]) -> dict[str, Any]:
    """Shown text of one row of the table; a cell of `intervals` is (interval, share covered)."""
    intervals = []
    for level in levels:
        entry = point["intervals"].get(level)
        known = entry is not None and not show.absent(entry["point"])
        held = show.held(entry["covered"]) if known else ""
        intervals.append((between(entry) if known else show.NOTHING, held))
    return {
        "model": point["model"],
        "seed": show.exact(point["seed"]),
        "tokens": show.short(point["tokens"]),
        "forecast": point["forecast"],
        "point": show.digits(point["point"], DIGITS),
        "intervals": intervals,
        "loss": show.digits(point["loss"], DIGITS),
        "error": _signed(point["error_percent"]),
        "state": point["state"],
        "verdict": _verdict(point),
    }


def _verdict(point: dict[str, Any]) -> str:
    if point["state"] == "lost":
        return f"{STATES['lost']}: {point['run_status']}"
    if point["state"] != "scored":
        return STATES[point["state"]]
    fit = "" if point["status"] == "converged" else f" (fit {point['status']})"
    inside = [level for level, entry in point["intervals"].items() if entry["inside"]]
    if inside:
        return f"inside the {show.percent(min(inside))} interval{fit}"
    return f"outside the {show.percent(max(point['intervals']))} interval{fit}"


def _file(name: str, ledger: list[dict[str, Any]], candidates) -> dict[str, Any]:
    point = next(point for point in ledger if point["forecast"] == name)
    written = point["written"]
    date = show.NOTHING
    if not show.absent(written):
        date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(written))
    mine = candidates[candidates["forecast"] == name]
    return {
        "name": name,
        "written": date,
        "law": show.NOTHING if show.absent(point["law"]) else point["law"],
        "status": point["status"],
        "why": show.NOTHING if show.absent(point["why"]) else point["why"],
        "candidates": [_candidate(row) for row in mine.to_dict("records")],
    }


def _candidate(row: dict[str, Any]) -> dict[str, Any]:
    within = row["within_percent"]
    runs = "all" if show.absent(within) else f"within {within:g} % of the best"
    return {
        "law": row["law"],
        "runs": runs,
        "chosen": bool(row["chosen"]),
        "cells": [
            _percent(row["score"]),
            _percent(row["mean_error_percent"]),
            _signed(row["mean_bias_percent"]),
            show.exact(row["folds"]),
            show.exact(row["rows_hidden"]),
        ],
    }


def _signed(value) -> str:
    if show.absent(value):
        return show.NOTHING
    return f"{'+' if value > 0 else '−'}{_percent(abs(value))}"


def _percent(value) -> str:
    return show.NOTHING if show.absent(value) else show.percent(value / 100)
