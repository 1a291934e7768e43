"""Whether intervals hold: a quick version of `benchmarks/fit.py coverage` (a thousand studies)."""

from __future__ import annotations

import importlib.util

import pytest


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
    found = benchmark.coverage(80, "5x3", quick)
    assert found["statuses"] == {"converged": 80}
    for name, share in found["covered"].items():
        assert 0.80 <= share <= 0.995, name
