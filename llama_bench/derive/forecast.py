"""The ledger of forecasts: what held-out trainings will lose, and what they will score, written
before they may start.

    python -m llama_bench forecast SPEC FORECAST.json

SPEC names the finished trainings to forecast from and the points to forecast (specs.ForecastSpec);
of scores, also the tasks and the evaluations. The back-test chooses the law (judging/choice.py);
its fit gives each point with 50, 80 and 95 % intervals. The file is an input of the held-out
trainings, so the workflow proves that it came first; `written` says when, for those who were not
there. It is never written again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd

from llama_bench import records
from llama_bench.derive.entry import Entry
from llama_bench.derive.fit import fit_table
from llama_bench.derive.judging import score_forecast
from llama_bench.derive.predict import LEVELS, predict_table
from llama_bench.derive.tables import main_metric, rows
from llama_bench.specs import ForecastSpec

SCHEMA = 1
FEWEST = 6  # runs: one more than the surface L(N, D) has parameters


def run(spec: str, output: Path, inputs: list[Path]) -> None:
    """Write the forecast that `spec` asks for, unless it is written already. Raises UserError."""
    if output.exists():
        return
    asked = ForecastSpec.parse(spec)
    table = ladder(asked.runs)
    if asked.tasks:
        content = forecast_scores(table, scores(asked.evaluations or ()), asked)
    else:
        content = forecast(table, asked)
    text = json.dumps(records.finite(content | {"written": time.time()}), indent=1, allow_nan=False)
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


def scores(evaluations: tuple[str, ...]) -> pd.DataFrame:
    """All scores of the evaluations, `run` being the training that each is of."""
    found = []
    for run_id in evaluations:
        path = f"results/runs/evaluate/{run_id}/record.json"
        entry = Entry(run_id, "evaluate", path, {}, records.read(Path(path)))
        mine = [row for table, row in rows.of(entry) if table == "scores"]
        found += [row | {"run": entry.record.spec["train"]} for row in mine]
    names = ["run", "task", "metric", "filter", "value", "chance", "first"]
    return pd.DataFrame(found, columns=names)


def forecast(table: pd.DataFrame, asked: ForecastSpec) -> dict:
    """The content of a forecast file: the law, why it was chosen, and a row per point.

    `points` have run, model, params, tokens, flops, then `point` (nats per token) and
    `low_<percent>`, `high_<percent>`, `covered_<percent>` for 50, 80 and 95 %; null where nothing
    can be foretold, with `status` saying why.
    """
    points, head = _points(asked), _head(asked, table)
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
        "why": score_forecast.why(fit),
        "choice": fit.get("choice"),
        "parameters": fit["parameters"],
        "points": told.to_dict("records"),
    }


def forecast_scores(table: pd.DataFrame, found: pd.DataFrame, asked: ForecastSpec) -> dict:
    """The content of a forecast file of scores: `tasks` has what `forecast` gives, for each."""
    points, tasks, left_out = _points(asked), [], []
    found = found[found["value"].notna() & found["run"].isin(table["run"] if len(table) else [])]
    for name in asked.tasks:
        mine = found[found["task"] == name]
        metric = _metric(mine)
        if metric is None or not score_forecast.foretold(metric):
            why = f"no law is of its metric, {metric}" if metric else "no run has a score of it"
            left_out.append({"task": name, "why": why})
            continue
        known, filtered = _known(table, mine, metric)
        about = {"task": name, "metric": metric, "filter": filtered}
        tasks.append(about | score_forecast.of_task(known, points, metric))
    used = table[table["run"].isin(found["run"])] if len(table) else table
    more = {"evaluations_asked": list(asked.evaluations or ())}
    return _head(asked, used) | more | {"tasks": tasks, "left_out": left_out}


def _metric(mine: pd.DataFrame) -> str | None:
    """What one task's scores are told by; None where there are none."""
    own = mine.loc[mine["first"].eq(True), "metric"]
    return main_metric.of(mine["metric"], own.min() if len(own) else None) if len(mine) else None


def _known(table: pd.DataFrame, mine: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, str]:
    """One task's runs: the ladder's columns with value, task_loss and chance; and the filter."""
    value = mine[mine["metric"] == metric]
    filtered = "none" if (value["filter"] == "none").any() else value["filter"].min()
    value = value[value["filter"] == filtered].drop_duplicates("run").set_index("run")
    smooth = mine[(mine["metric"] == main_metric.TASK_LOSS) & (mine["filter"] == filtered)]
    smooth = smooth.drop_duplicates("run").set_index("run")
    known = table[table["run"].isin(value.index)].set_index("run", drop=False)
    columns = {"value": value["value"], "chance": value["chance"], "task_loss": smooth["value"]}
    return known.assign(**columns).reset_index(drop=True), filtered


def _points(asked: ForecastSpec) -> pd.DataFrame:
    return pd.DataFrame([point.model_dump(exclude_none=True) for point in asked.points])


def _head(asked: ForecastSpec, table: pd.DataFrame) -> dict:
    return {
        "schema": SCHEMA,
        "id": asked.id,
        "runs_asked": list(asked.runs),
        "runs_used": sorted(table["run"]) if len(table) else [],
        "levels": list(LEVELS),
    }
