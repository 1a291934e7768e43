"""Whether intervals hold: a quick version of `benchmarks/fit.py coverage` (a thousand studies)."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from llama_bench.derive.fit import fit_table
from llama_bench.derive.fitting import fresh_studies


@pytest.fixture
def benchmark(repository):
    spec = importlib.util.spec_from_file_location(
        "fit_benchmark", repository / "benchmarks" / "fit.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nine_of_ten_intervals_hold(benchmark):
    """Of 80 studies 90 % is 72 give or take 2.7: three of these to either side."""
    quick = {"draws": 200, "starts": 8, "back_test": False}
    found = benchmark.coverage([benchmark.tried(number, "5x3", quick) for number in range(80)])
    assert found["statuses"] == {"converged": 80}
    for name, held in found["covered"].items():
        assert held["of"] == 80 and 0.80 <= held["share"] <= 0.995, name
    # and the fits know it of themselves
    for name, share in found["foretold"].items():
        assert share == pytest.approx(0.9, abs=0.07), name


def test_it_goes_on_from_what_is_done(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "BACK_TESTED", 1)
    done = tmp_path / "done.jsonl"
    first = benchmark.go_on(done, 2, ["5x3"])
    lines = done.read_text().splitlines()
    again = benchmark.go_on(done, 3, ["5x3"])
    assert done.read_text().splitlines()[:2] == lines and first["5x3"]["studies"] == 2
    assert again == benchmark.go_on(tmp_path / "whole.jsonl", 3, ["5x3"])
    assert done.read_text() == (tmp_path / "whole.jsonl").read_text()


def test_intervals_that_are_too_wide_are_told_by_the_fit_itself(benchmark):
    """Whole rows of fifteen, resampled, lose those that determine the law: too wide by far."""
    runs = benchmark.study("5x3", benchmark.NOISE, np.random.default_rng(1))
    shares = {}
    for way in ("residuals", "cases"):
        settings = {"law": "chinchilla", "bootstrap": way, "back_test": False, "starts": 8}
        parameters = fit_table(runs, settings)["parameters"]
        shares[way] = np.mean([entry["covered"] for entry in parameters.values()])
    assert shares["residuals"] == pytest.approx(0.9, abs=0.06)
    assert shares["cases"] > shares["residuals"] + 0.02


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_a_value_of_random_rank_is_held_as_often_as_the_level_says(level):
    random = np.random.default_rng(0)
    found = random.normal(size=(5000, 1 + fresh_studies.OWN_DRAWS))
    shares = [fresh_studies.covered(row[0], row[None, 1:], level) for row in found]
    assert np.mean(shares) == pytest.approx(level, abs=0.02)


def test_a_value_far_off_is_not_held_and_an_exact_one_is():
    found = np.random.default_rng(0).normal(size=(50, fresh_studies.OWN_DRAWS))
    assert fresh_studies.covered(9.0, found, 0.9) == 0.0
    assert fresh_studies.covered(1.0, np.ones_like(found), 0.9) == 1.0
    assert fresh_studies.covered(None, found, 0.9) is None
