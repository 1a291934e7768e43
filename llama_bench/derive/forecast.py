"""The ledger of forecasts: what held-out trainings will lose, written before they may start.

    python -m llama_bench forecast SPEC FORECAST.json

SPEC names the finished trainings to forecast from and the points to forecast (specs.ForecastSpec).
The back-test chooses the law among all (choice.py); its fit gives each point with 50, 80 and 95 %
intervals. The file is an input of the held-out trainings, so the workflow proves that it came
first; `written` says when, for those who were not there. It is never written again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd

from llama_bench import records
from llama_bench.derive.entry import Entry
from llama_bench.derive.fit import fit_table
from llama_bench.derive.predict import LEVELS, predict_table
from llama_bench.derive.tables import rows
from llama_bench.specs import ForecastSpec

SCHEMA = 1
FEWEST = 6  # runs: one more than the surface L(N, D) has parameters


def run(spec: str, output: Path, inputs: list[Path]) -> None:
    """Write the forecast that `spec` asks for, unless it is written already. Raises UserError."""
    if output.exists():
        return
    asked = ForecastSpec.parse(spec)
    content = forecast(ladder(asked.runs), asked) | {"written": time.time()}
    text = json.dumps(records.finite(content), indent=1, allow_nan=False)
    records.write_text(output, text + "\n")


def ladder(runs: tuple[str, ...]) -> pd.DataFrame:
    """The finished trainings as a table of runs; one that has no loss is left out."""
    found = []
    for run_id in runs:
        path = f"results/runs/train/{run_id}/record.json"
        labels = {"model": run_id, "role": "ladder"}
        entry = Entry(run_id, "train", path, labels, records.read(Path(path)))
        found += [row for table, row in rows.of(entry) if table == "ladder"]
    return pd.DataFrame(found)


def forecast(table: pd.DataFrame, asked: ForecastSpec) -> dict:
    """The content of a forecast file: the law, why it was chosen, and a row per point.

    `points` have run, model, params, tokens, flops, then `point` (nats per token) and
    `low_<percent>`, `high_<percent>`, `covered_<percent>` for 50, 80 and 95 %; null where nothing
    can be foretold, with `status` saying why.
    """
    points = pd.DataFrame([point.model_dump() for point in asked.points])
    head = {
        "schema": SCHEMA,
        "id": asked.id,
        "runs_asked": list(asked.runs),
        "runs_used": sorted(table["run"]) if len(table) else [],
        "levels": list(LEVELS),
    }
    if len(table) < FEWEST:
        why = f"{len(table)} finished runs; a forecast needs at least {FEWEST}"
        nothing = {"law": None, "status": "too-few-points", "why": why, "choice": None}
        return head | nothing | {"parameters": {}, "points": points.to_dict("records")}
    columns = ["params", "tokens", "loss", "flops", "seed"]
    fit = fit_table(table[columns], {"law": asked.law}, source="the study's ladder")
    told = predict_table(fit, points)
    return head | {
        "law": fit["law"],
        "status": fit["status"],
        "why": _why(fit),
        "choice": fit.get("choice"),
        "parameters": fit["parameters"],
        "points": told.to_dict("records"),
    }


def _why(fit: dict) -> str | None:
    """Why this law was chosen and, of a fit that did not converge, why it did not."""
    ended = f"the fit ended {fit['status']}: {fit['why']}" if fit["status"] != "converged" else None
    return "; ".join(filter(None, [fit.get("choice", {}).get("why"), ended])) or None
