"""The running mean is the power-weighted one of EDM2, whenever it was interrupted."""

from __future__ import annotations

import pytest
import torch

from llama_bench.measure.training import averaging


def mean_after(values: list[float]) -> float:
    mean = [torch.zeros(2, dtype=torch.float64)]
    for step, value in enumerate(values, start=1):
        averaging.update(mean, [torch.full((2,), value, dtype=torch.float64)], step)
    return mean[0][0].item()


def test_it_weights_a_step_by_a_power_of_it():
    """For weights that grow as the step, the mean is (power + 1) / (power + 2) of the last."""
    steps = 2000 * averaging.EVERY_STEPS
    wanted = (averaging.POWER + 1) / (averaging.POWER + 2) * steps
    assert mean_after([float(step) for step in range(1, steps + 1)]) == pytest.approx(
        wanted, rel=1e-3
    )


def test_what_does_not_change_is_its_own_mean():
    assert mean_after([3.0] * 5 * averaging.EVERY_STEPS) == pytest.approx(3.0, rel=1e-12)


def test_the_first_reading_forgets_where_the_mean_began():
    assert averaging.weight_of_newest(averaging.EVERY_STEPS) == 1
    assert averaging.weight_of_newest(averaging.EVERY_STEPS + 1) is None
