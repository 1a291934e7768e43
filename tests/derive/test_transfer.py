"""The transfer law finds what was put in, and says so where the runs cannot show it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llama_bench.derive.fitting import inverse
from llama_bench.derive.tables import transfer

WHOLE = 1e10  # examples at fraction 1
SIZES = (1e5, 1e6, 1e7, 1e8)
FRACTIONS = (1e-6, 1e-5, 1e-4, 1e-3)
# text to Python (Hernandez et al. 2021, table 1), in characters
PAPER = {"k": 1.9e4, "alpha": 0.18, "beta": 0.38}


def from_zero(size: float, data: float) -> float:
    """A loss that falls as one power of the data, at every size from elsewhere."""
    return 40 * size**-0.05 * data**-0.12


def finetuning(size, fraction, loss, zero=False, **named) -> dict:
    about = {"finetune": "text", "method": "full", "model": f"{size:g}", "budget": 1_000_000}
    row = about | {"fraction": fraction, "from_zero": zero or None, "origin": "trained"}
    row |= {"parameters_without_embeddings": int(size), "examples": fraction * WHOLE}
    return row | {"test_loss": loss} | named


def study(law: dict, sizes=SIZES, fractions=FRACTIONS, noise=0.0, most=1.0) -> list[dict]:
    """Runs from zero up to `most` of the data, and fine-tuned ones that know D_T more of it."""
    random = np.random.default_rng(3)
    rows = []
    for size in sizes:
        along = [f for f in np.geomspace(1e-7, 1, 15) if f <= most * 1.001]
        rows += [finetuning(size, f, from_zero(size, f * WHOLE), True) for f in along]
        for fraction in fractions:
            data = fraction * WHOLE
            moved = law["k"] * data ** law["alpha"] * size ** law["beta"]
            loss = from_zero(size, data + moved * math.exp(random.normal(0, noise)))
            rows.append(finetuning(size, fraction, loss))
    return rows


def found(rows: list[dict], table: str) -> list[dict]:
    return [row for name, row in transfer.rows(rows) if name == table]


@pytest.mark.parametrize("law", [PAPER, {"k": 3.0, "alpha": 0.6, "beta": 0.2}])
def test_the_law_that_was_put_in_comes_out(law):
    rows = study(law)
    points = found(rows, "transfer")
    assert {point["state"] for point in points} == {"used"} and len(points) == 16
    for point in points:
        moved = law["k"] * point["examples"] ** law["alpha"] * point["params"] ** law["beta"]
        assert point["transferred"] == pytest.approx(moved, rel=1e-6)
        assert point["effective_examples"] == pytest.approx(moved + point["examples"])
    fitted = found(rows, "transfer_laws")
    assert {row["parameter"]: row["value"] for row in fitted} == pytest.approx(law, rel=1e-4)
    assert {(row["status"], row["points"], row["sizes"]) for row in fitted} == {
        ("converged", 16, 4)
    }


def test_intervals_hold_what_was_put_in_where_losses_are_noisy():
    for row in found(study(PAPER, noise=0.2), "transfer_laws"):
        assert row["low"] < PAPER[row["parameter"]] < row["high"], row
        assert row["level"] == 0.95 and row["standard_error"] > 0


def test_a_curve_with_a_floor_is_read_backwards_between_its_points():
    data = np.geomspace(10, 10_000, 40)
    loss = 0.5 + 3 * data**-0.4
    for asked in (12.0, 333.0, 9000.0):
        assert inverse.data_needed(data, loss, 0.5 + 3 * asked**-0.4) == pytest.approx(asked, 0.01)


def test_nothing_is_read_beyond_a_curve_and_noise_does_not_turn_it():
    data, loss = np.array([100.0, 10.0, 1000.0]), np.array([2.0, 3.0, 1.0])
    assert inverse.data_needed(data, loss, 2.0) == pytest.approx(100)
    assert inverse.data_needed(data, loss, 0.9) == inverse.BEYOND
    assert inverse.data_needed(data, loss, 3.1) == inverse.SHORT
    # 2.0 and 2.2 in the wrong order are one level at their mean, reached by the smaller data
    risen = inverse.data_needed(np.array([10.0, 100, 1000, 1e4]), np.array([3, 2, 2.2, 1.0]), 2.0)
    assert 100 < risen < 10_000
    level = inverse.data_needed(
        np.array([10.0, 100, 1000, 1e4]), np.array([3, 2, 2.2, 1.0]), math.sqrt(2 * 2.2)
    )
    assert level == pytest.approx(100)


def test_points_that_no_run_from_zero_reached_are_marked_and_not_used():
    rows = study(PAPER, most=1e-3)
    points = found(rows, "transfer")
    beyond = [point for point in points if point["state"] == "beyond"]
    assert beyond and all(point["transferred"] is None for point in beyond)
    for point in beyond:
        needed = PAPER["k"] * point["examples"] ** 0.18 * point["params"] ** 0.38
        assert needed + point["examples"] > point["most_examples"]
    (law,) = {row["points"] for row in found(rows, "transfer_laws")}
    assert law == len(points) - len(beyond)


def test_a_model_that_gains_nothing_is_no_point_of_the_law():
    rows = study(PAPER, sizes=(1e5, 1e6))
    worse = [finetuning(1e7, f, 1.01 * from_zero(1e7, f * WHOLE)) for f in FRACTIONS]
    worse += [r for r in study(PAPER, sizes=(1e7,)) if r["from_zero"]]
    points = found(rows + worse, "transfer")
    assert [p["state"] for p in points if p["params"] == 1e7] == ["nothing"] * 4
    assert {row["points"] for row in found(rows + worse, "transfer_laws")} == {8}


def test_too_few_points_are_counted_and_nothing_is_fitted():
    (law,) = found(study(PAPER, sizes=(1e6,)), "transfer_laws")
    assert law["status"] == "too-few-points" and law["parameter"] is law["value"] is None
    assert law["why"].startswith("4 of 4 points can be used, of sizes: 1, of amounts of data: 4;")
    (law,) = found(study(PAPER, sizes=SIZES[:3], fractions=(1e-5,) * 2), "transfer_laws")
    assert (law["points"], law["sizes"], law["fractions"]) == (3, 3, 1)  # seeds are one point
    rows = [row for row in study(PAPER) if not row["from_zero"]]
    assert found(rows, "transfer") == found(rows, "transfer_laws") == []


def test_only_models_that_share_a_tokenizer_are_compared():
    elsewhere = [row | {"origin": "pretrained", "model": "other"} for row in study(PAPER)]
    assert found(elsewhere, "transfer") == []


def test_each_method_has_its_law_and_the_largest_budget_counts():
    lora = {"k": 50.0, "alpha": 0.3, "beta": 0.3}
    rows = study(PAPER)
    rows += [r | {"method": "lora"} for r in study(lora) if not r["from_zero"]]
    early = {"k": 1.0, "alpha": 0.5, "beta": 0.5}
    rows += [r | {"budget": 1000} for r in study(early) if not r["from_zero"]]
    fitted = found(rows, "transfer_laws")
    values = {(row["method"], row["parameter"]): row["value"] for row in fitted}
    for method, law in (("full", PAPER), ("lora", lora)):
        assert {name: values[method, name] for name in law} == pytest.approx(law, rel=1e-4)
