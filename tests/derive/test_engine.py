"""The minimiser, its starts, and the noise it is told of."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from llama_bench.derive.fit import fit_table
from llama_bench.derive.fitting import bootstrap, engine, robust, starts
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.laws.chinchilla import chinchilla

QUICK = {"draws": 20, "back_test": False, "starts": 32}


def grid(alpha: float, beta: float, decades: float, floor: float = 1.8) -> pd.DataFrame:
    """Runs without noise: five sizes and five token counts over so many decades."""
    params = np.repeat(np.geomspace(1e7, 1e7 * 10**decades, 5), 5)
    tokens = np.tile(np.geomspace(1e9, 1e9 * 10**decades, 5), 5)
    a, b = 1.5 * params.min() ** alpha, 1.2 * tokens.min() ** beta
    loss = floor + a / params**alpha + b / tokens**beta
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": loss})


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("beta", [0.2, 0.5])
@pytest.mark.parametrize("decades", [1.0, 3.0])
@pytest.mark.parametrize("loss_function", ["huber", "squared"])
def test_a_law_without_noise_is_recovered_exactly(alpha, beta, decades, loss_function):
    spec = {"law": "chinchilla", "loss_function": loss_function} | QUICK
    fit = fit_table(grid(alpha, beta, decades), spec)
    values = {name: entry["value"] for name, entry in fit["parameters"].items()}
    assert fit["status"] == "converged"
    assert values["E"] == pytest.approx(1.8, rel=1e-6)
    assert values["alpha"] == pytest.approx(alpha, rel=1e-6)
    assert values["beta"] == pytest.approx(beta, rel=1e-6)
    assert values["A"] == pytest.approx(1.5 * 1e7**alpha, rel=1e-5)


def problem(noise: float = 0.01, seed: int = 0):
    runs = grid(0.3, 0.4, 2.0)
    runs["loss"] *= np.exp(np.random.default_rng(seed).normal(0, noise, len(runs)))
    columns = {name: runs[name].to_numpy() for name in runs}
    surface = chinchilla.bind(columns, chinchilla.reference(columns))
    return surface, np.log(columns["loss"]), np.ones(len(runs))


@pytest.mark.parametrize("delta", [1e-3, math.inf])
def test_no_step_away_from_the_minimum_goes_down(delta):
    surface, target, weight = problem()
    found = engine.minimise(surface, target, weight, surface.starts(16, target, weight), delta)
    best = found.theta[found.best]
    moved = (
        best
        + np.random.default_rng(1).normal(size=(2000, 5)) * np.geomspace(1e-6, 1, 2000)[:, None]
    )
    moved = np.clip(moved, surface.lower, surface.upper)
    cost = robust.loss(target - surface.value(moved), delta).sum(axis=1)
    assert found.settled[found.best]
    assert cost.min() >= found.objective.min() * (1 - 1e-10)


def test_every_start_is_its_own_whatever_runs_beside_it():
    surface, target, weight = problem()
    begin = surface.starts(40, target, weight)
    together = engine.minimise(surface, target, weight, begin, 1e-3)
    alone = engine.minimise(surface, target, weight, begin[7:8], 1e-3)
    assert together.theta[7] == pytest.approx(alone.theta[0], rel=1e-6)


def test_each_problem_of_a_batch_has_its_own_targets_and_weights():
    surface, target, weight = problem()
    begin = np.repeat(surface.starts(1, target, weight), 2, axis=0)
    targets = np.stack([target, target + 0.1])
    both = engine.minimise(surface, targets, np.stack([weight, weight]), begin, math.inf)
    single = engine.minimise(surface, target + 0.1, weight, begin[1:], math.inf)
    assert both.objective[1] == pytest.approx(single.objective[0], rel=1e-8)
    assert both.theta[0] != pytest.approx(both.theta[1])


def test_huber_is_the_square_within_and_straight_beyond():
    residual = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    assert robust.loss(residual, 1.0) == pytest.approx([2.5, 0.125, 0.0, 0.125, 2.5])
    assert robust.loss(residual, math.inf) == pytest.approx(residual**2 / 2)


def test_spread_points_leave_no_large_hole():
    points = starts.spread(200, np.array([0.0, 0.0]), np.array([1.0, 1.0]))
    corners = np.stack(np.meshgrid(*[np.linspace(0, 1, 21)] * 2), axis=-1).reshape(-1, 2)
    nearest = np.linalg.norm(points[:, None] - corners[None], axis=2).min(axis=0)
    assert nearest.max() < 0.12
    assert (points[:50] == starts.spread(50, np.zeros(2), np.ones(2))).all()


def test_projection_is_the_non_negative_least_squares():
    from scipy.optimize import nnls

    random = np.random.default_rng(0)
    columns, target = random.normal(size=(30, 12, 3)), random.normal(size=12)
    found = starts.project(columns, target, np.ones(12))
    for i in range(30):
        assert found[i] == pytest.approx(nnls(columns[i], target)[0], abs=1e-8)


def table(rows: int, **more) -> Table:
    columns = {"params": np.repeat(np.geomspace(1e6, 1e9, rows // 4), 4)}
    columns["tokens"] = np.tile([1e9, 2e9, 4e9, 8e9], rows // 4)
    columns["flops"] = 6 * columns["params"] * columns["tokens"]
    return Table(columns | more, np.arange(rows))


def test_seed_noise_is_the_spread_between_equal_runs():
    random = np.random.default_rng(0)
    runs = table(400)
    twice = Table({n: np.tile(v, 5) for n, v in runs.columns.items()}, np.arange(2000))
    law = np.log(twice["params"])
    measured = bootstrap.seed_noise(twice, ("params", "tokens"), law + random.normal(0, 0.02, 2000))
    assert measured == pytest.approx(0.02, rel=0.05)
    assert bootstrap.seed_noise(runs, ("params", "tokens"), np.zeros(400)) is None


def test_redrawn_noise_is_as_wide_as_the_residuals_in_every_stratum():
    random = np.random.default_rng(0)
    runs = table(400)
    wide = np.where(np.arange(400) < 200, 0.02, 0.005)
    residuals = random.normal(0, wide)
    noise = bootstrap.measure(runs, ("params", "tokens"), np.zeros(400), residuals, 5, 1e-3)
    drawn = bootstrap.resample(noise, 400, random)
    assert drawn[:, :200].std() > 1.4 * drawn[:, 200:].std()
    assert drawn.std() == pytest.approx(np.sqrt(np.mean(wide**2)), rel=0.1)


def test_noise_is_never_below_what_seeds_show():
    runs = table(40)
    twice = Table({n: np.tile(v, 2) for n, v in runs.columns.items()}, np.arange(80))
    target = np.where(np.arange(80) < 40, 0.05, -0.05)
    noise = bootstrap.measure(twice, ("params", "tokens"), target, np.full(80, 1e-6), 5, 1e-3)
    assert noise.seed == pytest.approx(0.05 * math.sqrt(2))


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 6.3138), (2, 2.9200), (3, 2.3534), (10, 1.8125), (100, 1.6602)]
)
def test_students_t_at_95_percent(freedom, quantile):
    assert bootstrap.student_stretch(freedom) * 1.6448536 == pytest.approx(quantile, rel=5e-3)


@pytest.mark.parametrize(("threshold", "ratio"), [(1e-6, math.pi / 2), (1.345, 1 / 0.95), (9, 1)])
def test_variance_of_hubers_estimate(threshold, ratio):
    """1.345 standard deviations have 95 % efficiency, as every textbook says."""
    assert bootstrap.variance_ratio(threshold) == pytest.approx(ratio, rel=2e-3)


@pytest.mark.parametrize(("delta", "naive"), [(1e-3, 1.16), (math.inf, 1.0)])
def test_the_noise_put_in_is_the_noise_measured(delta, naive):
    """Squares of residuals over the degrees of freedom; n - P is too few for a robust fit."""
    random = np.random.default_rng(0)
    params, tokens = (v.ravel() for v in np.meshgrid(np.geomspace(1e6, 1e8, 5), [1e8, 4e8, 16e8]))
    columns = {"params": params, "tokens": tokens, "loss": 1.8 + 400 / params**0.35}
    columns["loss"] += 2000 / tokens**0.37
    surface = chinchilla.bind(columns, chinchilla.reference(columns))
    start, even = surface.starts(40, np.log(columns["loss"]), np.ones(15)), np.ones(15)
    exact = engine.minimise(surface, np.log(columns["loss"]), even, start, math.inf)
    losses = np.log(columns["loss"]) + random.normal(0, 0.005, (1500, 15))
    start = np.repeat(exact.theta[[exact.best]], 1500, axis=0)
    found = engine.minimise(surface, losses, even, start, delta)
    residuals = losses - surface.value(found.theta)
    squares = [np.sum(r**2) / bootstrap.freedom(r, 5, delta)[0] for r in residuals]
    assert np.mean(squares) == pytest.approx(0.005**2, rel=0.06)
    assert np.mean(residuals**2) * 15 / 10 == pytest.approx(naive * 0.005**2, rel=0.06)
