"""Laws as functions: their values, their gradients, their way back to natural units."""

from __future__ import annotations

import numpy as np
import pytest

from llama_bench.derive.fitting import families, fitted_parameters, fresh_studies
from llama_bench.derive.laws import isoflop
from llama_bench.derive.laws.chinchilla import chinchilla
from llama_bench.derive.laws.data_constrained import PUBLISHED
from llama_bench.derive.laws.law import power_law

SPECS = [
    {"law": "chinchilla"},
    {"law": "chinchilla", "residual": "linear"},
    *({"law": "kaplan", "form": form} for form in ("N", "D", "ND", "C")),
    {"law": "frontier"},
    {"law": "overtraining"},
    {"law": "data_constrained"},
    {"law": "data_constrained", "tied": True},
    {"law": "data_constrained", "base": "published"},
    {"law": "direct"},
    {"law": "direct", "chance": 0.25},
    {"law": "constant"},
]


def columns(rows: int = 30) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    made = {
        "params": 10 ** random.uniform(6, 9, rows),
        "tokens": 10 ** random.uniform(8, 11, rows),
        "loss": random.uniform(2, 4, rows),
        "accuracy": random.uniform(0.2, 0.9, rows),
    }
    made["flops"] = 6 * made["params"] * made["tokens"]
    made["unique_tokens"] = made["tokens"] / random.choice([1, 2, 10], rows)
    return made


def bound(spec: dict, data: dict[str, np.ndarray]):
    family, settings = families.known(spec)
    law = family.method(settings).law
    surface = law.bind(data, law.reference(data))
    target = law.onto_link(data[law.target])
    theta = surface.starts(5, target, np.ones(len(target)))
    theta = np.concatenate([theta, surface.generic[None]])
    return law, surface, target, np.clip(theta, surface.lower + 0.01, surface.upper - 0.01)


def slopes(function, theta: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of function(theta) in each parameter, on the last axis."""
    moved = []
    for place in range(theta.shape[1]):
        shift = np.zeros(theta.shape[1])
        shift[place] = step
        moved.append((function(theta + shift) - function(theta - shift)) / (2 * step))
    return np.stack(moved, axis=-1)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_gradient_is_the_slope_of_the_value(spec):
    _, surface, _, theta = bound(spec, columns())
    given, differences = surface.jacobian(theta), slopes(surface.value, theta)
    assert np.abs(given - differences).max() < 1e-7 * np.abs(given).max()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_hessian_is_the_slope_of_the_gradient(spec):
    _, surface, target, theta = bound(spec, columns())

    def pull(h):
        return 0.5 * (target - h) ** 2, h - target, np.ones_like(h)

    given = surface.newton(theta, pull)[2]
    differences = slopes(lambda at: surface.newton(at, pull)[1], theta, 1e-5)
    assert np.abs(given - differences).max() < 1e-4 * np.abs(given).max()


def written_out(spec: dict, p: dict, x: dict) -> np.ndarray:
    """The formulas of the docstrings, as anyone would type them."""
    form = spec.get("form")
    if spec["law"] == "chinchilla":
        return p["E"] + p["A"] / x["params"] ** p["alpha"] + p["B"] / x["tokens"] ** p["beta"]
    if spec["law"] == "kaplan" and form == "ND":
        size = (p["N_c"] / x["params"]) ** (p["alpha_N"] / p["alpha_D"])
        return (size + p["D_c"] / x["tokens"]) ** p["alpha_D"]
    if spec["law"] == "kaplan":
        column = {"N": "params", "D": "tokens", "C": "flops"}[form]
        return p["A"] / x[column] ** p[f"alpha_{form}"]
    if spec["law"] == "frontier":
        return p["E"] + p["K"] / x["flops"] ** p["g"]
    if spec["law"] == "overtraining":
        ratio = x["tokens"] / x["params"]
        over = p["a"] * ratio ** p["eta"] + p["b"] * ratio ** -p["eta"]
        return p["E"] + over / x["flops"] ** p["eta"]
    if spec["law"] == "constant":
        return np.full(len(x["flops"]), p["level"])
    if spec["law"] == "direct":
        low = spec.get("chance", p.get("low"))
        return low + (p["high"] - low) / (1 + (p["C_mid"] / x["flops"]) ** p["k"])
    base = PUBLISHED.model_dump() if spec.get("base") == "published" else p
    alpha, beta = base["alpha"], base.get("beta", base["alpha"])
    a, b = alpha * base["A"], beta * base["B"]
    unique = np.minimum(x["unique_tokens"], x["tokens"])
    deserved = (a / b) ** (1 / alpha) * unique ** (beta / alpha)
    fit = np.minimum(x["params"], deserved)
    n = fit * (1 + p["R_N"] * (1 - np.exp(-(x["params"] / fit - 1) / p["R_N"])))
    d = unique * (1 + p["R_D"] * (1 - np.exp(-(x["tokens"] / unique - 1) / p["R_D"])))
    return base["E"] + base["A"] / n**alpha + base["B"] / d**beta


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_natural_parameters_put_into_the_formula_give_the_surface(spec):
    data = columns()
    law, surface, _, theta = bound(spec, data)
    reference = law.reference(data)
    natural = law.natural(theta, reference)
    assert set(natural) == set(law.parameter_names)
    for i in range(len(theta)):
        expected = written_out(spec, {name: v[i] for name, v in natural.items()}, data)
        assert law.off_link(surface.value(theta)[i]) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("gone", ["A", "B", "alpha", "beta"])
def test_without_one_of_its_terms_a_law_has_no_split(gone):
    natural = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
    rows = {name: np.array([v, 0.0 if name == gone else v]) for name, v in natural.items()}
    split = chinchilla.derived(rows)
    assert split["a"][0] == pytest.approx(0.37 / 0.72) and split["b"][0] == pytest.approx(
        1 - 0.37 / 0.72
    )
    assert np.isnan(split["a"][1]) and np.isnan(split["b"][1])


def test_a_vanished_term_comes_back_nowhere():
    """With a steep exponent, what the bound leaves of a coefficient is a best size far away."""
    data = columns()
    law, surface, _, theta = bound({"law": "chinchilla"}, data)
    theta = theta[:1].copy()
    theta[0, 1], theta[0, 3] = surface.lower[1], 2.0
    small = law.bind({**data, "params": data["params"] * 1e-5}, law.reference(data))
    bare = small.without_vanished(theta)
    natural = {name: v[0] for name, v in law.natural(theta, law.reference(data)).items()}
    expected = natural["E"] + natural["B"] / data["tokens"] ** natural["beta"]
    assert np.exp(small.value(bare)[0]) == pytest.approx(expected)
    assert np.exp(small.value(theta)[0]).max() > 2 * expected.max()


@pytest.mark.parametrize(("lost", "ends"), [(0, (5, 95)), (4, (1, 99)), (6, (None, None))])
def test_draws_that_do_not_determine_a_value_widen_its_interval(lost, ends):
    drawn = np.arange(1.0, 101.0)
    drawn[50 : 50 + lost] = np.nan
    made = fitted_parameters.entry(50.0, drawn, 0.9)
    assert (made["low"], made["high"]) == ends
    assert made["unbounded"] == (["low", "high"] if ends[0] is None else [])


def test_a_study_whose_draws_lost_a_value_holds_it_as_its_interval_does():
    found = np.full((1, fresh_studies.OWN_DRAWS), 2.0)
    assert fresh_studies.covered(1.0, found, 0.9) == pytest.approx(0)
    found[0, 0] = np.nan  # less than a tail
    assert fresh_studies.covered(1.0, found, 0.9) == pytest.approx(0)
    found[0, 1] = np.nan
    assert fresh_studies.covered(1.0, found, 0.9) == pytest.approx(1)


def test_a_law_of_another_table_keeps_its_coordinates():
    data = columns()
    law, surface, _, theta = bound({"law": "chinchilla"}, data)
    one = {name: values[:1] for name, values in data.items()}
    alone = law.bind(one, law.reference(data))
    assert alone.value(theta)[:, 0] == pytest.approx(surface.value(theta)[:, 0])


def test_a_new_law_is_one_function_and_its_bounds():
    @power_law(needs=("params",), exponents={"p": (0.0, 1.0)}, paper="none")
    def square(x):
        """L(N) = E + A / N^p"""
        return {"A": {"p": -x["params"]}}

    data = columns()
    surface = square.bind(data, square.reference(data))
    assert square.parameter_names == ("E", "A", "p")
    assert square.formula == "L(N) = E + A / N^p"
    natural = square.natural(surface.generic[None], square.reference(data))
    expected = natural["E"] + natural["A"] * data["params"] ** -natural["p"]
    assert np.exp(surface.value(surface.generic[None])[0]) == pytest.approx(expected)


@pytest.mark.parametrize("method", ["akima", "parabola"])
def test_the_minimum_of_a_parabola_is_found(method):
    size = np.linspace(-3, 3, 13)
    found = isoflop.minimum(size, (1 + 0.1 * (size - 0.4) ** 2)[None], method)[0]
    assert found == pytest.approx([0.4, 1.0], abs=2e-3)


@pytest.mark.parametrize("method", ["akima", "parabola"])
def test_a_minimum_beyond_the_runs_is_none(method):
    size = np.linspace(0, 3, 9)
    assert np.isnan(isoflop.minimum(size, -size[None], method)).all()
