"""Published tables of runs (../shared/truth) and what their authors found in them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llama_bench.derive.fit import fit_table
from llama_bench.derive.judging import choice
from llama_bench.derive.predict import predict_table

QUICK = {"draws": 20, "back_test": False}


@pytest.fixture
def truth(shared):
    return lambda *parts: pd.read_csv(shared("truth", *parts))


def values(fit: dict) -> dict[str, float]:
    return {name: entry["value"] for name, entry in fit["parameters"].items()}


def test_chinchilla(truth):
    """Besiroglu et al.: the minimum that Hoffmann et al. missed, and its standard errors."""
    fit = fit_table(truth("chinchilla", "runs.csv"), {"law": "chinchilla", "back_test": False})
    found = values(fit)
    assert fit["status"] == "converged"
    assert fit["objective"] <= 1.0001 * 0.0010182740
    assert found["E"] == pytest.approx(1.817, abs=0.004)
    assert found["alpha"] == pytest.approx(0.348, abs=0.002)
    assert found["beta"] == pytest.approx(0.366, abs=0.004)
    for name, error in (("E", 0.0257), ("alpha", 0.0154), ("beta", 0.0206)):
        assert fit["parameters"][name]["standard_error"] == pytest.approx(error, rel=0.25)


def test_data_constrained_finds_the_global_minimum_and_says_what_is_open(truth):
    """Muennighoff et al. report a local minimum, objective 0.0158259 at R_D 15.4, R_N 5.3."""
    fit = fit_table(
        truth("datablations", "runs.csv"),
        {"law": "data_constrained", "base": "published", "draws": 200, "back_test": False},
    )
    assert fit["objective"] <= 0.0158048
    assert fit["status"] == "ill-posed" and "R_D" in fit["why"]
    assert fit["parameters"]["R_D"]["unbounded"] == ["high"]
    assert fit["parameters"]["R_D"]["low"] < 15.4


def test_gadre_forecasts(truth):
    """0.7103 % and 0.7320 % of loss, from five runs, at 300 times their compute."""
    runs = truth("gadre", "runs_rpj.csv")
    small = runs[
        (runs["params"] < 5e8) & (runs["token_mult"] == 20)
        | (runs["params"] < 2e7) & (runs["token_mult"] == 320)
    ]
    large = runs[
        runs["params"].between(1e9, 2e9) & (runs["token_mult"] == 640) | (runs["params"] > 6e9)
    ]
    assert (len(small), len(large)) == (5, 2)
    columns = ["params", "tokens", "loss"]
    fit = fit_table(small[columns], {"law": "overtraining"} | QUICK)
    point = predict_table(fit, large[columns])["point"].to_numpy()
    error = 100 * np.abs(point / large["loss"].to_numpy() - 1)
    assert error == pytest.approx([0.7103, 0.7320], abs=0.001)


@pytest.mark.parametrize(
    ("experiment", "exponent", "method", "tolerance"),
    [
        ("reproducing_kaplan", 0.835, "akima", 0.006),
        ("att_tuned_optimizer", 0.497, "akima", 0.006),
        # The table has these three with attention counted, the published exponents without: up to
        # 0.013 lies between them, and no method of ours should be bent to close it.
        ("att_last_layer_flops", 0.706, "akima", 0.015),
        ("att_correct_warmup", 0.602, "akima", 0.015),
        ("att_cosine_decay", 0.571, "akima", 0.015),
        ("reproducing_kaplan", 0.835, "parabola", 0.035),
        ("att_last_layer_flops", 0.706, "parabola", 0.035),
        ("att_correct_warmup", 0.602, "parabola", 0.035),
        ("att_cosine_decay", 0.571, "parabola", 0.035),
        ("att_tuned_optimizer", 0.497, "parabola", 0.035),
    ],
)
def test_porian_chain(truth, experiment, exponent, method, tolerance):
    runs = truth("porian", "isoflop_refinedweb.csv")
    runs = runs[runs["experiment"] == experiment]
    fit = fit_table(runs, {"law": "isoflop", "method": method} | QUICK)
    assert fit["status"] == "converged"
    assert fit["parameters"]["a"]["value"] == pytest.approx(exponent, abs=tolerance)


def test_porian_frontier_forecasts_four_budgets_from_eight(truth):
    runs = truth("porian", "isoflop_refinedweb.csv")
    runs = runs[runs["experiment"] == "att_tuned_optimizer"]
    budgets = np.sort(runs["budget"].unique())
    small = runs[runs["budget"] <= budgets[7]]
    best = runs[runs["budget"] > budgets[7]].groupby("budget")["loss"].min()
    fit = fit_table(small, {"law": "frontier"} | QUICK)
    said = predict_table(fit, pd.DataFrame({"flops": best.index.to_numpy()}))
    assert np.mean(np.abs(said["point"].to_numpy() / best.to_numpy() - 1)) <= 0.001


@pytest.mark.parametrize(
    ("counting", "a", "b"),
    [
        ("kaplan_no_embed_with_lm_head", 0.54, 0.49),
        ("all_parameters", 0.37, 0.50),
        ("transformer_matrices_only", 0.70, 0.41),
    ],
)
def test_nanochat_exponents_by_way_of_counting(truth, counting, a, b):
    optima = truth("nanochat", "optima.csv")
    fit = fit_table(
        optima[optima["counting"] == counting], {"law": "envelope", "rows": "optima"} | QUICK
    )
    assert fit["parameters"]["a"]["value"] == pytest.approx(a, abs=0.006)
    assert fit["parameters"]["b"]["value"] == pytest.approx(b, abs=0.006)


def test_gemstones(truth):
    runs = truth("gemstones", "runs_hot.csv")
    fit = fit_table(runs[runs["subset"] == "hot"], {"law": "chinchilla"} | QUICK)
    found = values(fit)
    assert fit["objective"] <= 0.0019817
    assert found["alpha"] == pytest.approx(0.293, abs=0.002)
    assert found["beta"] == pytest.approx(0.713, abs=0.002)
    assert found["E"] == pytest.approx(2.143, abs=0.002)


@pytest.mark.parametrize(
    ("parts", "most"), [(("chinchilla", "runs.csv"), 1.05), (("gadre", "runs_rpj.csv"), 0.9)]
)
def test_the_judge_forecasts_the_largest_quarter(truth, parts, most):
    runs = truth(*parts)[["params", "tokens", "loss"]]
    runs = runs.iloc[np.argsort(runs["params"] * runs["tokens"].astype(float))]
    split = round(0.75 * len(runs))
    small, large = runs[:split], runs[split:]
    _, winner = choice.choose(small)
    fit = fit_table(small, winner | QUICK)
    point = predict_table(fit, large)["point"].to_numpy()
    assert 100 * np.mean(np.abs(point / large["loss"].to_numpy() - 1)) <= most
