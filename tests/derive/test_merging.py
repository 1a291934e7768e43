"""The law of merged models: known parameters, honest intervals, and when it says nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.stats import t

from llama_bench.derive.laws import merging

KNOWN = [(2.5, 0.3, 0.5), (2.5, 0.02, -0.3), (3.0, 1.0, 4.0), (0.4, 0.05, 0.0)]


def noisy(members, noise: float, seed: int, parameters=KNOWN[0]):
    random = np.random.default_rng(seed)
    return merging.loss(members, *parameters) + noise * random.standard_normal(len(members))


@pytest.mark.parametrize("parameters", KNOWN, ids=str)
@pytest.mark.parametrize("most", [4, 9])
def test_known_parameters_are_found(parameters, most):
    members = range(1, most + 1)
    found = merging.fit(members, merging.loss(members, *parameters))
    assert found.status == "converged" and found.freedom == most - 3
    assert [found.values[name] for name in "EAb"] == pytest.approx(parameters, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_no_other_search_finds_a_smaller_sum_of_squares(seed):
    members = np.arange(1, 9)
    losses = noisy(members, 2e-3, seed)
    mine = merging.fit(members, losses)
    ends = ([0, 0, -0.9999], [np.inf, np.inf, 1e4])
    other = least_squares(
        lambda at: losses - merging.loss(members, *at), KNOWN[0], bounds=ends, xtol=1e-14
    )
    assert squares(members, losses, mine.values) <= 2 * other.cost * (1 + 1e-9)


def squares(members, losses, values) -> float:
    return float(((losses - merging.loss(members, **values)) ** 2).sum())


@pytest.mark.parametrize("name", "EAb")
@pytest.mark.parametrize("end", [0, 1])
def test_an_interval_ends_where_the_best_others_fit_just_so_badly(name, end):
    members = np.arange(1, 9)
    losses = noisy(members, 1e-3, 3)
    found = merging.fit(members, losses)
    limit = squares(members, losses, found.values)
    limit *= 1 + t.ppf(0.975, found.freedom) ** 2 / found.freedom
    held, others = found.intervals[name][end], [n for n in "EAb" if n != name]

    def residuals(at):
        return losses - merging.loss(members, **{name: held}, **dict(zip(others, at, strict=True)))

    start = [found.values[n] for n in others]
    best = least_squares(residuals, start, x_scale=np.abs(start), xtol=1e-15, ftol=1e-15)
    assert 2 * best.cost == pytest.approx(limit, rel=2e-3)


@pytest.mark.parametrize("most", [4, 8])
def test_intervals_hold_the_truth_as_often_as_they_say(most):
    members, held = np.arange(1, most + 1), 0
    for seed in range(100):
        low, high = merging.fit(members, noisy(members, 1e-4, seed)).intervals["E"]
        held += low <= KNOWN[0][0] <= high
    assert abs(held / 100 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 100)


@pytest.mark.parametrize("members", [(1, 2, 3), (1, 2, 2, 3), ()])
def test_three_parameters_take_four_numbers_of_members(members):
    found = merging.fit(members, [3.0] * len(members))
    assert found.status == "too-few-points" and not found.values
    assert str(len(set(members))) in found.why


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ((3.0, 3.1, 3.2, 3.3), "does not fall"),
        ((3.0, 3.0, 3.0, 3.0), "does not fall"),
        ((3.0, 2.9, 2.9, 2.9), "b at its lower bound"),  # all of it by the second member
        ((3.0, 2.8, 2.6, 2.4), "at its"),  # a straight line has no floor
    ],
)
def test_curves_of_another_form_are_at_a_bound_and_have_no_interval(losses, why):
    found = merging.fit((1, 2, 3, 4), losses)
    assert found.status == "at-bounds" and why in found.why and not found.intervals


def test_four_noisy_points_do_not_determine_it():
    found = merging.fit((1, 2, 3, 4), (3.0, 2.93, 2.91, 2.885))
    assert found.status == "ill-posed" and found.intervals["b"][1] == np.inf
