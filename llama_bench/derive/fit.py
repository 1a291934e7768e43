"""The verb `fit`: a law on anybody's table of runs.

    python -m llama_bench fit LAW FIT.json RUNS.csv

LAW is a law's name, or JSON text with its settings: {"law": "chinchilla", "draws": 4000}.
docs/laws.md says what every key of the fit file means.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from llama_bench import records
from llama_bench.derive import fitted_parameters, intervals, judge, laws, runs_table
from llama_bench.derive.fit_settings import FitSettings, parse
from llama_bench.derive.regression import Regression, regress
from llama_bench.derive.selection import near_best
from llama_bench.fields import UserError

SCHEMA = 1


def run(spec: str, output: Path, inputs: list[Path]) -> None:
    """Fit the law that `spec` names to the one table in `inputs`; write the fit file."""
    content = parse(spec)
    if len(inputs) != 1:
        raise UserError(f"fit: one table of runs is needed, {len(inputs)} given")
    fit = fit_table(runs_table.read(inputs[0]), content, source=str(inputs[0]))
    try:
        records.write_text(output, json.dumps(fit, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None


def fit_table(frame: pd.DataFrame, settings: dict | str | FitSettings, source: str = "runs") -> dict:
    """The content of a fit file. `settings`: a law's name, a dict with "law", or FitSettings.

    Raises UserError for a table or settings that cannot be used; a table that can be used but
    determines nothing gives a fit whose `status` says so.
    """
    if isinstance(settings, str):
        settings = parse(settings)
    if isinstance(settings, FitSettings):
        settings = settings.model_dump()
    chosen = laws.settings_for(settings)
    law = laws.law_for(chosen)
    table = runs_table.checked(frame, [*law.needs, law.target], chosen.missing, source)
    fit = regress(law, near_best(table, chosen.within_percent, law.target), chosen)
    test = judge.back_test(law, table, chosen) if chosen.back_test else None
    return records.finite(_content(fit, test, chosen))


def _content(fit: Regression, back_test: dict | None, settings: FitSettings) -> dict:
    return {
        "schema": SCHEMA,
        "law": fit.law.name,
        "formula": fit.law.formula,
        "paper": fit.law.paper,
        "settings": settings.model_dump(mode="json"),
        "status": fit.status,
        "why": fit.why,
        "parameters": fitted_parameters.parameters(fit, settings.level),
        "derived": fitted_parameters.derived(fit, settings.level),
        "objective": fit.objective,
        "points_used": fitted_parameters.points(fit),
        "points_left_out": fit.table.left_out,
        "back_test": back_test,
        "predict": intervals.kept(fit),
    }
