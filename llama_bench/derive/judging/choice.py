"""Which law to believe: the judge's table of laws and selections of runs, and the winner's fit.

`fit auto` and the study's forecasts use it. Every candidate is back-tested on the same hidden runs;
the one with the smallest mean error forecasts, or a simpler one within MARGIN of it. The table of
all is kept beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pydantic import ValidationError

from llama_bench.derive.fitting import families, runs_table
from llama_bench.derive.fitting.fit_settings import FitSettings
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.fitting.selection import near_best
from llama_bench.derive.judging import judge
from llama_bench.fields import Base, Real, UserError, readable

LAWS = ("chinchilla", "kaplan", "overtraining")
SELECTIONS = (None, 10.0, 5.0, 3.0)
# A candidate must beat an earlier, simpler one by this share of its error: less is chance.
MARGIN = 0.02


class AutoSettings(Base):
    """laws: names, or specs with settings. selections: values of `within_percent` to try with
    each, null for all runs. on: which hidden runs decide, `all` or the `best` of their budget."""

    law: str = "auto"
    laws: list[str | dict] = list(LAWS)
    selections: list[Real | None] = list(SELECTIONS)
    on: str = "all"


def known(content: dict) -> AutoSettings:
    """Checked settings of `auto`. Raises UserError naming the key, or the law."""
    try:
        settings = AutoSettings.model_validate(content)
    except ValidationError as error:
        raise readable(error, "fit") from None
    if settings.on not in ("all", "best"):
        raise UserError(f"fit: on: {settings.on!r} is neither all nor best")
    for law in settings.laws:
        family, _ = families.known({"law": law} if isinstance(law, str) else law)
        if family.method is None:
            raise UserError(f"fit: laws: {law!r} has no back-test of its loss; use frontier")
    return settings


def choose(
    frame: pd.DataFrame,
    laws: Sequence[str | dict] = LAWS,
    selections: Sequence[float | None] = SELECTIONS,
    on: str = "all",
    source: str = "runs",
) -> tuple[list[dict], dict | None]:
    """Back-test every law with every selection of runs: (table of all, the winner's settings).

    The winner's settings are ready for fit_table; None where no candidate could be tested (too few
    runs for a fit and a larger run to hide). In the table, best candidate first, are law,
    settings, within_percent, rows_hidden, folds, errors, covered shares and `score`: the error
    over the folds that all candidates forecast.
    """
    rows = []
    for law in laws:
        content = {"law": law} if isinstance(law, str) else dict(law)
        seen = set()
        for within in selections:
            family, settings = families.known(content | {"within_percent": within})
            table = runs_table.checked(frame, family.columns(settings), settings.missing, source)
            chosen = tuple(near_best(table, within).rows) if "loss" in table else within
            if chosen not in seen:
                rows.append(_tested(table, family, settings))
            seen.add(chosen)
    key = "mean_error_percent" if on == "all" else "best_runs_error_percent"
    winner = None
    for row, score in zip(rows, _scores(rows, key), strict=True):
        row["score"] = score
        if score is not None and (winner is None or score < (1 - MARGIN) * winner["score"]):
            winner = row
    for row in rows:
        row["chosen"] = row is winner
    rows.sort(key=lambda row: (not row["chosen"], row["score"] is None, row["score"] or 0.0))
    return rows, winner["settings"] if winner else None


def _scores(rows: list[dict], key: str) -> list[float | None]:
    """The error of each candidate over the folds that all of them forecast.

    A law of few parameters can be fitted to the first folds already, one of many cannot: compared
    over all their folds, each would sit another test. A candidate without the last fold, or with
    less than half of the folds that another has, is out.
    """
    able = [{i for i, fold in enumerate(row["folds"]) if fold[key] is not None} for row in rows]
    most = max((len(folds) for folds in able), default=0)
    last = max((max(folds) for folds in able if folds), default=-1)
    within = [bool(folds) and last in folds and 2 * len(folds) >= most for folds in able]
    shared = (
        set.intersection(*(f for f, fit in zip(able, within, strict=True) if fit))
        if any(within)
        else set()
    )
    scores: list[float | None] = []
    for row, fit in zip(rows, within, strict=True):
        folds = [row["folds"][i] for i in sorted(shared)]
        # A law of the best runs alone is asked about fewer rows; folds count alike for all.
        scores.append(sum(f[key] for f in folds) / len(folds) if fit and folds else None)
    return scores


def _tested(table: Table, family, settings: FitSettings) -> dict:
    method = family.method(settings)
    test = judge.back_test(method, table, settings, family.reduce)
    return {
        "law": settings.law,
        "within_percent": settings.within_percent,
        "settings": settings.model_dump(mode="json"),
        "folds": test["folds"],
        **{
            key: test[key]
            for key in (
                "rows_hidden",
                "mean_error_percent",
                "mean_bias_percent",
                "best_runs_error_percent",
            )
        },
        "levels": test["levels"],
    }


def fitted(frame: pd.DataFrame, content: dict, source: str = "runs") -> dict:
    """The fit file of the winner, with the table of all candidates under `choice`.

    Where nothing could be tested the first law is fitted, and says what became of it.
    """
    from llama_bench.derive.fit import fit_table  # it calls back here for the law `auto`

    settings = known(content)
    rows, winner = choose(frame, settings.laws, settings.selections, settings.on, source)
    first = settings.laws[0]
    fit = fit_table(frame, winner or ({"law": first} if isinstance(first, str) else first), source)
    return fit | {"choice": {"why": _why(rows), "on": settings.on, "table": rows}}


def _why(rows: list[dict]) -> str:
    """Of `choose`'s table, the winner first."""
    scores = [row["score"] for row in rows if row["score"] is not None]
    if not scores:
        return "too few runs to hide any; the first law, untested"
    least = "the smallest mean error on hidden larger runs"
    if scores[0] == min(scores):
        return least
    return f"the simplest within {100 * MARGIN:.0f} % of {least}"
