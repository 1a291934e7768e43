"""The split of compute in the report is the fit's own, and is there only where the fit has one."""

from __future__ import annotations

import json

import pytest
from study_on_paper import Paper
from test_plot import fitted
from test_report import reported

from llama_bench.derive.words import allocationtext, show


@pytest.fixture
def content(tmp_path):
    return json.loads(fitted(Paper(tmp_path).ladder()).read_text())


def test_the_best_size_of_a_known_law_is_shown(content):
    # minimum of 60 / N^0.33 + 200 / D^0.37 at C = 6 N D, in closed form
    flops = content["allocation"][0]["flops"]
    spent = (0.33 * 60 / (0.37 * 200)) ** (1 / 0.70)
    size = spent * (flops / 6) ** (0.37 / 0.70)
    assert content["allocation"][0]["params"]["value"] == pytest.approx(size, rel=0.02)
    told = allocationtext.told(content)
    words = " ".join(told["words"])
    best = content["allocation"][0]
    for name, after in (("params", "parameters"), ("tokens", "tokens")):
        assert f"= {show.short(best[name]['value'])} {after}" in words
    flat = best["flat"]
    assert flat["params_low"] < size < flat["params_high"]
    assert (
        f"any from {show.short(flat['params_low'])} to {show.short(flat['params_high'])}" in words
    )
    assert [row["factor"] for row in told["rows"]] == [
        "as the dearest run",
        "10 times that",
        "100 times that",
    ]


def test_a_split_outside_the_runs_is_called_an_extrapolation(content):
    sizes = [point["params"] for point in content["points_used"]]
    best = content["allocation"][0]
    best["params"]["value"] = 2 * max(sizes)
    assert (
        f"That is an extrapolation: {show.short(2 * max(sizes))} parameters where the runs had "
        f"{show.short(min(sizes))} to {show.short(max(sizes))}"
    ) in " ".join(allocationtext.told(content)["words"])
    best["params"]["value"], best["tokens"]["value"] = sizes[0], content["points_used"][0]["tokens"]
    assert "extrapolation" not in " ".join(allocationtext.told(content)["words"])


@pytest.mark.parametrize("status", ["at-bounds", "ill-posed", "too-few-points"])
def test_a_fit_that_did_not_converge_has_no_split(content, status):
    told = allocationtext.told({**content, "status": status})
    assert told["rows"] == []
    (words,) = told["words"]
    assert f"the fit ended {status}" in words and "N*" not in words


def test_a_law_without_a_best_size_says_so(content):
    nothing = {"value": None, "low": None, "high": None, "unbounded": ["low", "high"]}
    content["allocation"][0] |= {"params": nothing, "tokens": nothing, "tokens_per_param": nothing}
    told = allocationtext.told(content)
    assert "has no best one" in told["words"][0]
    assert told["rows"][0]["cells"][0][0] == "not determined"
    assert told["rows"][0]["flat"] == show.NOTHING


def test_a_law_of_compute_alone_has_no_split(content):
    assert allocationtext.told({**content, "law": "frontier", "allocation": None}) is None
    assert allocationtext.told({**content, "allocation": None}) is None


def test_the_report_shows_it(tmp_path):
    text = reported(Paper(tmp_path, noise=0.002).ladder(), law=True).read_text()
    assert "A budget of compute can be spent on a larger model or on more tokens" in text
    assert "100 times that" in text and "Sizes within 1 % of that loss" in text
    few = reported(Paper(tmp_path / "few", budgets=(200_000,)).ladder(), law=True).read_text()
    assert "No best split of compute" in few and "can be spent on" not in few
