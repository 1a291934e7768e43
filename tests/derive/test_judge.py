"""The back-test: what it hides, what it widens, what it chooses; and the runs it selects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llama_bench.derive.fit import fit_table
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.fitting.selection import excess, near_best
from llama_bench.derive.judging import choice, judge
from llama_bench.derive.predict import predict_table
from llama_bench.fields import UserError


def runs(law, noise: float = 0.003, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    params = np.repeat(np.geomspace(1e7, 3e9, 8), 5)
    tokens = params * np.tile([5, 10, 20, 40, 80], 8)
    made = law(params, tokens) * np.exp(random.normal(0, noise, len(params)))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": made})


def hoffmann(params, tokens):
    return 1.8172 + 477.8 / params**0.3473 + 2143.0 / tokens**0.3672


def without_floor(params, tokens):
    return ((3e13 / params) ** (0.08 / 0.1) + 2e13 / tokens) ** 0.1


def as_table(frame: pd.DataFrame) -> Table:
    columns = {name: frame[name].to_numpy() for name in frame}
    columns["flops"] = 6 * columns["params"] * columns["tokens"]
    return Table(columns, np.arange(1, len(frame) + 1))


def test_what_is_hidden_is_always_larger_than_what_is_fitted():
    table = as_table(runs(hoffmann))
    folds = judge.folds(table)
    assert len(folds) >= 4
    for fitted, hidden in folds:
        assert table["flops"][fitted].max() < table["flops"][hidden].min()
        assert (fitted | hidden).all()


def test_runs_of_one_budget_are_hidden_together():
    table = as_table(runs(hoffmann))
    budget = np.repeat([1.0, 2.0, 3.0, 4.0], 10)
    for fitted, hidden in judge.folds(Table(table.columns | {"budget": budget}, table.rows)):
        assert not set(budget[fitted]) & set(budget[hidden])


def test_one_budget_has_no_fold():
    one = Table({"budget": np.ones(9), "loss": np.ones(9)}, np.arange(9))
    assert judge.folds(one) == []


def test_intervals_that_hold_stay_as_they_are():
    scores = np.linspace(0, 1.05, 100)
    assert judge.widening([scores], 0.9) == 1.0


def test_intervals_that_fail_are_widened_until_the_hidden_runs_lie_inside():
    scores = np.linspace(0, 4, 100)
    factor = judge.widening([scores], 0.8)
    assert np.mean(scores <= factor) == pytest.approx(0.8, abs=0.02)


def test_why_a_law_forecasts_is_what_the_table_shows():
    """A simpler law comes first where a later one is hardly better."""
    scores = {"constant": 5.0, "direct": 4.95, "two_step": None}
    table = [{"law": law, "score": score} for law, score in scores.items()]
    assert choice._why(table).startswith("the simplest within 2 % of the smallest mean error")
    assert choice._why(table[1:]) == "the smallest mean error on hidden larger runs"
    assert choice._why(table[2:]).startswith("too few runs")


def test_too_few_hidden_runs_widen_to_the_worst_of_them():
    assert judge.widening([np.array([3.0, 2.0, 5.0])], 0.95) == 5.0
    assert judge.widening([], 0.95) == 1.0


def test_the_share_covered_is_counted_on_folds_that_did_not_set_the_widening():
    calm, wild = np.full(10, 0.5), np.full(10, 3.0)
    # Widened by the wild fold the calm one is inside; widened by the calm one the wild is not.
    assert judge._held_out_cover([calm, wild], 0.9) == 0.5


@pytest.mark.parametrize(("law", "name"), [(hoffmann, "chinchilla"), (without_floor, "kaplan")])
def test_the_law_that_made_the_runs_wins(law, name):
    rows, winner = choice.choose(runs(law, 0.001), ["chinchilla", "kaplan"], [None])
    assert winner["law"] == name
    assert [row["chosen"] for row in rows] == [True, False]
    assert rows[0]["score"] < rows[1]["score"]


def test_candidates_are_compared_over_the_same_folds():
    def row(errors):
        return {"folds": [{"mean_error_percent": error} for error in errors]}

    rows = [row([9.0, 2.0, 1.0]), row([None, 3.0, 2.0]), row([0.1, 0.1, None])]
    assert choice._scores(rows, "mean_error_percent") == [1.5, 2.5, None]


def test_auto_fits_the_winner_and_shows_the_table_of_all():
    frame = runs(hoffmann)
    fit = fit_table(frame, {"law": "auto", "laws": ["kaplan", "chinchilla"], "selections": [None]})
    assert fit["law"] == "chinchilla"
    assert {row["law"] for row in fit["choice"]["table"]} == {"kaplan", "chinchilla"}
    said = predict_table(fit, pd.DataFrame({"params": [1e10], "tokens": [2e11]})).iloc[0]
    assert said["point"] == pytest.approx(hoffmann(1e10, 2e11), rel=0.01)
    assert said["low_95"] < said["low_50"] < said["point"] < said["high_50"] < said["high_95"]


def test_auto_without_runs_to_hide_says_so():
    fit = fit_table(runs(hoffmann)[:3], "auto")
    assert fit["status"] == "too-few-points"
    assert "untested" in fit["choice"]["why"]


def test_auto_names_an_unknown_law():
    with pytest.raises(UserError, match=r"chinchila.*did you mean 'chinchilla'"):
        fit_table(runs(hoffmann), {"law": "auto", "laws": ["chinchila"]})


def test_the_back_test_reports_a_law_that_cannot_hold():
    def bent(params, tokens):
        return hoffmann(params, tokens) * np.where(params > 2e8, 0.8, 1.0)

    held = fit_table(runs(hoffmann), "chinchilla")["back_test"]
    broken = fit_table(runs(bent), "chinchilla")["back_test"]
    assert held["mean_error_percent"] < 1 < broken["mean_error_percent"]
    level = next(entry for entry in broken["levels"] if entry["level"] == 0.8)
    assert level["covered_as_drawn"] < 0.8 and level["widening"] > 1


def test_excess_is_over_the_best_run_of_no_more_compute():
    table = Table(
        {"flops": np.array([1e18, 1.05e18, 4e18]), "loss": np.array([3.0, 3.3, 2.0])}, np.arange(3)
    )
    assert excess(table) == pytest.approx([0.0, 0.1, 0.0])


def test_a_selection_lists_what_it_left_out_and_why():
    table = Table(
        {"flops": np.array([1e18, 1e18, 4e18]), "loss": np.array([3.0, 3.3, 2.0])},
        np.array([1, 2, 3]),
    )
    kept = near_best(table, 5.0)
    assert list(kept.rows) == [1, 3]
    assert kept.left_out == [{"row": 2, "why": "more than 5 % above the best of its budget"}]
