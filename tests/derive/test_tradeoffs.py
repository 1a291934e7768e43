"""Every score and the loss against every cost, in one table, with the Pareto front of each pair."""

from __future__ import annotations

import numpy as np
import pytest
from cost_on_paper import TWO, cells_only, changed_cells, small, tabled
from study_on_paper import Paper

from llama_bench.derive.tables import study_tables, tradeoffs
from llama_bench.derive.words import tradeoff


def metered(root) -> Paper:
    """Two sizes at one budget, scored and probed with a counter of energy."""
    paper = small(root)
    changed_cells(paper, lambda found: found.update(joules=[0.25 * found["tokens"]] * 4))
    return paper


def test_every_quality_stands_against_every_cost(tmp_path):
    rows = tabled(metered(tmp_path), price_per_hour=3.6)["tradeoffs"]
    assert set(rows["metric"]) == {"loss", "acc", "bits_per_byte"}
    assert set(rows["cost"]) == set(tradeoffs.COSTS)
    assert set(rows.groupby(["metric", "cost"]).size()) == {len(TWO)}
    assert rows["task"].isna().sum() == (rows["metric"] == "loss").sum()
    assert not rows.loc[rows["metric"] == "loss", "higher_is_better"].any()
    assert rows.loc[rows["metric"] == "acc", "higher_is_better"].all()


def test_what_is_paid_is_the_probed_cells_own(tmp_path):
    tables = tabled(metered(tmp_path), price_per_hour=3.6)
    paid = tables["tradeoffs"].query("metric == 'loss'").set_index(["model", "cost"])["paid"]
    place = "phase == 'decode' and batch == 1 and context == 256"
    memory = tables["memory"].query(place).set_index("model")
    for model, cell in tables["cells"].query(place).set_index("model").iterrows():
        seconds = cell["median_seconds"] / cell["tokens"]
        assert paid[model, "seconds_per_token"] == pytest.approx(seconds)
        assert paid[model, "joules_per_token"] == pytest.approx(0.25)
        assert paid[model, "price_per_million_tokens"] == pytest.approx(1e3 * seconds)
        assert paid[model, "peak_bytes"] == memory.loc[model, "peak_bytes"]


def test_the_front_is_that_of_the_figures(tmp_path):
    tables = tabled(Paper(tmp_path).whole())
    ladder = study_tables.own_ladder(tables)
    costs = tradeoff.costs(ladder)
    for quality in tradeoff.qualities(ladder):
        points = tradeoff.points(quality, costs, "seconds")
        rows = tables["tradeoffs"].query("metric == @quality.about['metric']")
        rows = rows[rows["cost"] == "seconds_per_token"]
        assert len(rows) == len(points) and rows["front"].any() and not rows["front"].all()
        for key in ("model", "budget", "value", "front"):
            np.testing.assert_array_equal(rows[key], points[key])


def test_what_was_not_measured_has_no_row(tmp_path):
    rows = tabled(small(tmp_path))["tradeoffs"]
    assert set(rows["cost"]) == {"seconds_per_token", "peak_bytes"}
    unscored = cells_only(tmp_path / "unscored")
    assert not len(tabled(unscored)["tradeoffs"])
