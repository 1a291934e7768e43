"""The verb `fit`: a law on anybody's table of runs.

    python -m llama_bench fit LAW FIT.json RUNS.csv

LAW is a law's name, or JSON text with its settings: {"law": "chinchilla", "draws": 4000}.
docs/laws.md says what every key of the fit file means.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from llama_bench import records
from llama_bench.derive.allocation import best_split, optimum_fit
from llama_bench.derive.fitting import (
    families,
    fitted_parameters,
    fresh_studies,
    runs_table,
    table_file,
)
from llama_bench.derive.fitting.fit_settings import FitSettings, parse
from llama_bench.derive.fitting.methods import status_of
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.fitting.selection import near_best
from llama_bench.derive.judging import choice, counting, judge
from llama_bench.fields import UserError

SCHEMA = 1


def run(spec: str, output: Path, inputs: list[Path]) -> None:
    """Fit the law that `spec` names to the one table in `inputs`; write the fit file."""
    content = parse(spec)
    families.known(content) if content["law"] != "auto" else choice.known(content)
    if len(inputs) != 1:
        raise UserError(f"fit: one table of runs is needed, {len(inputs)} given")
    frame = table_file.read(inputs[0])
    fit = _of_no_run(frame, content) or fit_table(frame, content, source=str(inputs[0]))
    write(output, json.dumps(fit, indent=1, allow_nan=False) + "\n")
    known = {n: e["value"] for n, e in fit["parameters"].items() if e["value"] is not None}
    values = ", ".join(f"{name} {value:.4g}" for name, value in known.items())
    said = "; ".join(part for part in (fit["status"], fit.get("why"), values) if part)
    print(f"{fit['law']}: {said} -> {output}")


def write(output: Path, text: str) -> None:
    """Whole or not at all. Raises UserError where it cannot be written."""
    try:
        records.write_text(output, text)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None


def _of_no_run(frame: pd.DataFrame, content: dict) -> dict | None:
    """The fit of a table that has the law's columns and no row: a study in which every run failed
    still has its report. None of any other table."""
    if len(frame) or content["law"] == "auto":
        return None
    family, settings = families.known(content)
    if not set(family.columns(settings)) <= set(frame.columns):
        return None
    head = {"schema": SCHEMA, "law": settings.law, "settings": settings.model_dump(mode="json")}
    empty = {"parameters": {}, "derived": {}, "points_used": [], "points_left_out": []}
    missing = ("formula", "paper", "objective", "seed_noise", "allocation", "back_test", "predict")
    said = {"status": "too-few-points", "why": "the table has no rows", "counting": []}
    return head | said | empty | dict.fromkeys(missing)


def fit_table(
    frame: pd.DataFrame, settings: dict | str | FitSettings, source: str = "runs"
) -> dict:
    """The content of a fit file. `settings`: a law's name, a dict with "law", or FitSettings.

    Raises UserError for a table or settings that cannot be used; a table that can be used but
    determines nothing gives a fit whose `status` says so.
    """
    if isinstance(settings, str):
        settings = parse(settings)
    if isinstance(settings, FitSettings):
        settings = settings.model_dump()
    if settings["law"] == "auto":
        return choice.fitted(frame, settings, source)
    family, chosen = families.known(_with_ends(settings, frame, source))
    head = {"schema": SCHEMA, "law": chosen.law, "settings": chosen.model_dump(mode="json")}
    table = runs_table.checked(frame, family.columns(chosen), chosen.missing, source)
    if family.optima is not None:
        made = optimum_fit.content(family.optima(table, chosen), chosen)
    else:
        made = _content(family, table, chosen)
    return records.finite(head | made | counting.content(frame, family, chosen, source))


def _with_ends(settings: dict, frame: pd.DataFrame, source: str) -> dict:
    """Where a law of accuracy leaves its ends to be fitted and the table says what they are."""
    found = {}
    for end in runs_table.ENDS if settings["law"] in ("direct", "two_step") else ():
        if settings.get(end) is not None or end not in frame.columns:
            continue
        known = np.unique(runs_table.numbers(frame, end, source))
        if len(known) == 1 and np.isfinite(known[0]):
            found[end] = float(known[0])
    return settings | found


def _content(family, table: Table, settings: FitSettings) -> dict:
    method = family.method(settings)
    rows = near_best(family.reduce(table, settings), settings.within_percent, method.last.target)
    fits = method.fit(rows, settings)
    status, why = status_of(fits)
    parameters, derived, level = {}, {}, settings.level
    fresh = [fresh_studies.draws(fit, settings) for fit in fits]
    for fit, draws in zip(fits, fresh, strict=True):
        parameters |= fitted_parameters.parameters(fit, level, draws)
        derived |= fitted_parameters.derived(fit, level, draws)
    last = fits[-1]
    return {
        "formula": "; ".join(fit.law.formula for fit in fits),
        "paper": last.law.paper,
        "status": status,
        "why": why,
        "parameters": parameters,
        "derived": derived,
        "objective": last.objective,
        "points_used": fitted_parameters.points(last),
        "points_left_out": last.table.left_out,
        "seed_noise": last.noise.seed if last.noise else None,
        "allocation": best_split.content(fits[0], level, fresh[0]),
        "back_test": judge.back_test(method, table, settings, family.reduce)
        if settings.back_test
        else None,
        "predict": method.kept(fits),
    }
