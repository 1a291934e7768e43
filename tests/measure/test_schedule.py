"""Rates of every step, and the peak that a sweep found."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from training import spec_of

from llama_bench.fields import UserError
from llama_bench.measure.training.schedule import peak_rate, rate
from llama_bench.records import Record, Refusal
from llama_bench.specs import TrainSpec

HERE = Path("data-0/record.json")
COSINE = dict(schedule="cosine", decay=None, decay_share=None)


def test_wsd_warms_up_holds_and_decays_to_nothing():
    spec = spec_of(HERE)
    rates = [rate(spec, step, 3e-3) for step in range(spec.steps)]
    assert rates[0] < rates[3] < rates[7] == 3e-3
    assert rates[spec.trunk_steps - 1] == 3e-3 > rates[spec.trunk_steps] > rates[-1] > 0
    assert rates[-1] < 0.02 * 3e-3


def test_a_linear_decay_is_a_line():
    spec = spec_of(HERE, decay="linear")
    falling = [rate(spec, step, 1.0) for step in range(spec.trunk_steps, spec.steps)]
    steps = {round(a - b, 12) for a, b in pairwise(falling)}
    assert steps == {round(1 / (len(falling) + 1), 12)}


def test_cosine_falls_to_a_tenth_over_its_own_budget():
    spec = spec_of(HERE, **COSINE)
    rates = [rate(spec, step, 1.0) for step in range(spec.steps)]
    warm = spec.warmup_steps
    assert rates[warm - 1] == 1.0
    assert rates == sorted(rates[:warm]) + sorted(rates[warm:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    middle = warm + (spec.steps - warm) // 2 - 1
    assert rates[middle] == pytest.approx(0.55, abs=1e-6)
    assert rates[warm] == pytest.approx(
        0.1 + 0.45 * (1 + math.cos(math.pi / (spec.steps - warm))), rel=1e-12
    )


def swept(root: Path, results: dict[float, float | None]) -> tuple[TrainSpec, list[Path]]:
    """A spec that asks for the best of these rates, and the records of their trainings."""
    paths = []
    for peak, loss in results.items():
        spec = spec_of(HERE, learning_rate=peak)
        paths.append(root / spec.id / "record.json")
        Record(
            id=spec.id,
            verb="train",
            status="diverged" if loss is None else "ok",
            spec=spec.model_dump(mode="json", exclude_none=True),
            seconds={},
            provenance={},
            result={"step": 3} if loss is None else {"loss": loss},
        ).write(paths[-1])
    names = tuple(path.parent.name for path in paths)
    return spec_of(HERE, learning_rate=None, sweep=names), paths


def test_a_sweep_gives_the_rate_of_the_lowest_loss(tmp_path):
    spec, paths = swept(tmp_path, {4e-3: 5.5, 1e-3: 5.2, 2e-3: 5.1})
    assert peak_rate(spec, paths) == (
        2e-3,
        {"rates": [1e-3, 2e-3, 4e-3], "losses": [5.2, 5.1, 5.5], "at_edge": False},
    )


@pytest.mark.parametrize(("losses", "best"), [((5.0, 5.1, 5.2), 1e-3), ((5.2, 5.1, 5.0), 4e-3)])
def test_the_best_rate_may_lie_at_an_edge(tmp_path, losses, best):
    spec, paths = swept(tmp_path, dict(zip((1e-3, 2e-3, 4e-3), losses, strict=True)))
    peak, found = peak_rate(spec, paths)
    assert (peak, found["at_edge"]) == (best, True)


def test_a_rate_that_diverged_bounds_the_others(tmp_path):
    spec, paths = swept(tmp_path, {1e-3: 5.2, 2e-3: 5.1, 4e-3: None})
    peak, found = peak_rate(spec, paths)
    assert (peak, found["losses"][2], found["at_edge"]) == (2e-3, None, False)


def test_a_sweep_without_a_loss_is_skipped(tmp_path):
    spec, paths = swept(tmp_path, {1e-3: None, 2e-3: None})
    with pytest.raises(Refusal, match="none of the trainings") as caught:
        peak_rate(spec, paths)
    assert caught.value.status == "skipped"


def test_a_record_of_the_sweep_that_is_not_given_is_named(tmp_path):
    spec, paths = swept(tmp_path, {1e-3: 5.2, 2e-3: 5.1})
    with pytest.raises(UserError, match=paths[1].parent.name):
        peak_rate(spec, paths[:1])
