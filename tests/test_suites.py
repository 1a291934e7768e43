"""What a suite's keys ask of its evaluations."""

from llama_bench.study import load


def evaluations(**suite):
    asked = {"suites": {"x": {"tasks": ["heldout"], **suite}}}
    found = load({"models": {"train": [{"size": "50k"}]}, "evaluate": asked}).runs
    return {id: run.spec for id, run in found.items() if run.spec.verb == "evaluate"}


def test_a_seed_makes_other_runs_and_none_makes_those_of_zero():
    assert evaluations() == evaluations(seed=0)
    assert not set(evaluations()) & set(evaluations(seed=1234))
    assert {spec.seed for spec in evaluations(seed=1234).values()} == {1234}
