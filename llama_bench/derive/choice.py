"""Which law to believe: the judge's table of laws and selections of runs, and the winner's fit.

`fit auto` and the study's forecasts use it. Every candidate is back-tested on the same hidden runs;
the one with the smallest mean error forecasts, and the table of all is kept beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pydantic import ValidationError

from llama_bench.derive import families, judge, runs_table
from llama_bench.derive.fit_settings import FitSettings
from llama_bench.fields import Base, Real, UserError, readable

LAWS = ("chinchilla", "kaplan", "overtraining")
SELECTIONS = (None, 10.0, 5.0, 2.0)
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
    settings, within_percent, rows_hidden, statuses of the folds, errors and covered shares.
    """
    rows = []
    for law in laws:
        content = {"law": law} if isinstance(law, str) else dict(law)
        for within in selections:
            family, settings = families.known(content | {"within_percent": within})
            rows.append(_tested(frame, family, settings, source))
    key = "mean_error_percent" if on == "all" else "best_runs_error_percent"
    most = max((row["rows_hidden"] for row in rows), default=0)
    winner = None
    for row in rows:
        # Fewer rows forecast than others did is a smaller test, not a better law.
        comparable = row[key] is not None and (on == "best" or row["rows_hidden"] == most)
        if comparable and (winner is None or row[key] < (1 - MARGIN) * winner[key]):
            winner = row
    for row in rows:
        row["chosen"] = row is winner
    rows.sort(key=lambda row: (not row["chosen"], row[key] is None, row[key] or 0.0))
    return rows, winner["settings"] if winner else None


def _tested(frame, family, settings: FitSettings, source: str) -> dict:
    method = family.method(settings)
    table = runs_table.checked(frame, method.columns, settings.missing, source)
    test = judge.back_test(method, table, settings, family.reduce)
    return {
        "law": settings.law,
        "within_percent": settings.within_percent,
        "settings": settings.model_dump(mode="json"),
        "folds": [fold["status"] for fold in test["folds"]],
        **{key: test[key] for key in ("rows_hidden", "mean_error_percent", "mean_bias_percent",
                                      "best_runs_error_percent")},
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
    why = ("the smallest mean error on hidden larger runs" if winner
           else "too few runs to hide any; the first law, untested")
    return fit | {"choice": {"why": why, "on": settings.on, "table": rows}}
