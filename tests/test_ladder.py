"""Which trainings a configuration asks for: the ladder, its texts, its sweeps and grids."""

import math

import pytest

from llama_bench import recipe
from llama_bench.study import load

SIZES = [{"size": "20k"}, {"size": "50k"}, {"size": "115k"}]
SHORT = {"budgets": ["250k", "500k"], "horizon": "500k"}


def study(**sections):
    return load({"models": {"train": SIZES}, "train": SHORT, **sections})


def trainings(study, **labels):
    return [
        run
        for run in study.runs.values()
        if run.spec.verb == "train" and labels.items() <= run.labels.items()
    ]


def test_the_published_scale_gets_a_published_rate():
    """1 B parameters, 20 B tokens, half a million tokens a batch: between 3e-4 and 1e-3, where
    OLMo, Llama-like and Pythia runs of that size lie."""
    assert 3e-4 < recipe.peak_rate(10**9, 20 * 10**9, 2**19) < 1e-3


def test_the_rule_is_its_own_measurement_at_its_anchor_and_its_sources_away_from_it():
    assert recipe.peak_rate(113_000, 400_000, 512) == 0.0025
    ratio = recipe.peak_rate(113_000, 800_000, 512) / 0.0025
    assert math.isclose(ratio, 2**-0.32, rel_tol=2e-3)
    # Li et al. 2025, equation 1, at their 100 B tokens: 1.1 M tokens a batch
    assert recipe.batch(100 * 10**9, 2048) == 512
    assert recipe.warmup_tokens(10**6, 20 * 10**6) == 10**6
    assert recipe.warmup_tokens(10**6, 10**6) == 50_000


def test_a_budget_does_not_change_the_other_branches():
    before, after = study(), study(train={**SHORT, "budgets": ["250k", "500k", "1M"]})
    assert set(before.runs) < set(after.runs)


def test_cosine_trains_every_budget_alone():
    asked = study(train={"budgets": ["250k", "500k"], "schedule": "cosine"})
    runs = trainings(asked, role="ladder")
    assert all(len(run.inputs) == 1 for run in runs)
    rates, batches = {}, {}
    for run in trainings(asked, model="50k"):
        rates[run.spec.tokens], batches[run.spec.tokens] = run.spec.learning_rate, run.spec.batch
    batch = (batches[500_000] / batches[250_000]) ** 0.5
    assert math.isclose(rates[500_000] / rates[250_000], 2**-0.32 * batch, rel_tol=0.01)


def test_texts_are_crossed_with_sizes_and_share_held_out_text():
    variants = [
        {"name": "half", "unique_tokens": "125k"},
        {"name": "clean", "clean": ["exact_duplicates", "near_duplicates"]},
        {"name": "few", "clean": ["length"], "models": ["50k"], "budgets": ["500k"]},
    ]
    asked = study(data={"variants": variants})
    own = trainings(asked, role="ladder")
    assert len(own) == 3 * 6 + 1
    prepares = [run for run in asked.runs.values() if run.spec.verb == "prepare"]
    assert len(prepares) == 3
    base, *others = prepares
    assert all(run.spec.held_out_of == base.spec.id for run in others)
    assert all(run.inputs[0] == base.path for run in others)
    half = trainings(asked, data="half")
    assert {run.spec.data for run in half} == {base.spec.id}
    assert {run.spec.unique_tokens for run in half} == {125_000}
    # no trunk is shared between texts, and one is within each
    trunks = {
        name: {r.spec.trunk for r in trainings(asked, data=name)} for name in ("half", "clean")
    }
    assert len(trunks["half"] | trunks["clean"]) == 6
    assert {run.spec.data for run in asked.runs.values() if run.spec.verb == "tasks"} == {
        base.spec.id
    }


def test_a_sweep_is_measured_first_and_named_by_what_rests_on_it():
    asked = study(train={**SHORT, "sweep": {"factors": [0.5, 1, 2]}})
    sweep = trainings(asked, role="sweep", model="50k")
    assert [run.labels["factor"] for run in sweep] == [0.5, 1, 2]
    rates = [run.spec.learning_rate for run in sweep]
    assert rates[2] == pytest.approx(4 * rates[0], rel=1e-5)
    for run in trainings(asked, role="ladder", model="50k"):
        assert run.spec.learning_rate is None
        assert run.spec.sweep == tuple(each.spec.id for each in sweep)
        assert {each.path for each in sweep} < set(run.inputs)
    fixed = [{"size": "20k", "learning_rate": 1e-3}, *SIZES[1:]]
    asked = study(models={"train": fixed}, train={**SHORT, "sweep": {}})
    assert not trainings(asked, role="sweep", model="20k")
    assert {r.spec.learning_rate for r in trainings(asked, model="20k")} == {1e-3}


def test_the_sensitivity_strip_stands_beside_the_two_smallest_sizes():
    asked = study(train={**SHORT, "sensitivity": True})
    strip = trainings(asked, role="sensitivity")
    assert {(run.labels["model"], run.labels["factor"]) for run in strip} == {
        (model, factor) for model in ("20k", "50k") for factor in (0.5, 2.0)
    }
    assert set(study().runs) < set(asked.runs)


def test_isoflop_grids_spend_what_they_are_given_around_the_optimum():
    flops = [1e13, 1e14, 1e15]
    asked = load({"models": {}, "train": {"budgets": {"flops": flops, "sizes_per_budget": 5}}})
    assert asked.laws == ["chinchilla", "isoflop", "direct", "two_step"]
    for budget in flops:
        runs = trainings(asked, flop_budget=budget)
        assert len(runs) == 5
        ratios = []
        for run in runs:
            cost = run.spec.model.flops_per_token(1024, 256) * run.spec.tokens
            assert cost == pytest.approx(budget, rel=1e-3)
            ratios.append(run.spec.tokens / run.spec.model.size)
        # on both sides of twenty tokens per parameter
        assert min(ratios) < 20 < max(ratios)
    # neighbouring budgets share sizes, and so trunks
    assert len({run.labels["model"] for run in trainings(asked)}) < 15
    assert len({run.spec.trunk for run in trainings(asked)}) == len(
        {run.labels["model"] for run in trainings(asked)}
    )


def test_a_compute_budget_more_keeps_the_others():
    few = load({"models": {}, "train": {"budgets": {"flops": [1e13, 1e14]}}})
    more = load({"models": {}, "train": {"budgets": {"flops": [1e13, 3e13, 1e14]}}})
    assert {run.path for run in trainings(few)} < {run.path for run in trainings(more)}


def test_given_sizes_are_trained_at_each_compute_budget():
    asked = load({"models": {"train": SIZES}, "train": {"budgets": {"flops": [1e12, 2e12]}}})
    assert len(trainings(asked)) == 6
