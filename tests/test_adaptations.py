"""Fine-tuning and fusion: what a configuration asks for, and what it cannot ask for."""

import copy
import json

import pyarrow
import pytest
from pyarrow import parquet

from llama_bench.study import UserError, load

STUDY = {
    "models": {"train": [{"size": "22k"}, {"size": "50k"}]},
    "train": {"budgets": ["250k", "500k"], "horizon": "500k", "batch": 2},
    "evaluate": {"suites": {"lines": {"tasks": ["heldout_next_line"]}}},
    "probe": {"phases": ["prefill", "decode", "train"]},
}
PART = {"examples": "part", "suites": []}
SEEDS = {"members": {"seeds": 3}, "models": ["22k"], "suites": []}


def with_(**sections) -> dict:
    return {**copy.deepcopy(STUDY), **sections}


def runs(verb: str, given: dict) -> list:
    return [run for run in load(given).runs.values() if run.spec.verb == verb]


def refused(given: dict) -> str:
    with pytest.raises(UserError) as caught:
        load(given)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_without_their_sections_nothing_of_them_runs():
    verbs = {run.spec.verb for run in load(STUDY).runs.values()}
    assert not verbs & {"examples", "finetune", "fuse"}


def test_adding_one_adds_its_own_runs_and_renames_none():
    plain = set(load(STUDY).runs)
    tuned = set(load(with_(finetune={"part": PART})).runs)
    both = set(load(with_(finetune={"part": PART, "doc": {**PART, "examples": "docstring"}})).runs)
    fused = set(
        load(with_(finetune={"part": PART}, fuse={"seeds": {**SEEDS, "methods": ["mixture"]}})).runs
    )
    assert plain < tuned < both and tuned < fused
    assert {path.split("/")[2] for path in tuned - plain} == {"examples", "finetune", "evaluate"}


def test_fractions_methods_and_beginnings_cross():
    part = {**PART, "fractions": ["1/16", 0.25, 1], "methods": ["full", "lora"], "from_zero": True}
    found = runs("finetune", with_(finetune={"part": part}))
    assert len(found) == 2 * 3 * 2 + 2 * 3
    assert {run.spec.fraction for run in found} == {0.0625, 0.25, None}
    zero = [run for run in found if run.labels.get("from_zero")]
    assert all(run.spec.base is None and len(run.inputs) == 2 for run in zero)
    lora = [run for run in found if run.spec.method == "lora"]
    assert all(run.spec.rank == 8 and run.spec.learning_rate > 0 for run in lora)
    bases = {run.spec.base.run for run in found if run.spec.base}
    assert {base.split("-")[1] for base in bases} == {"500k"}, "the largest budget"


def test_models_are_taught_with_the_bos_that_they_are_asked_with():
    once = runs("finetune", with_(finetune={"part": PART}))
    said = {**STUDY["evaluate"], "bos": "once"}
    assert [r.spec for r in runs("finetune", with_(finetune={"part": PART}, evaluate=said))] == [
        run.spec for run in once
    ]
    assert {run.spec.bos for run in once} == {None}
    stock = with_(finetune={"part": PART}, evaluate={**STUDY["evaluate"], "bos": "stock"})
    assert {run.spec.bos for run in runs("finetune", stock)} == {"stock"}


def test_the_data_axis_can_be_of_some_models_alone():
    part = {**PART, "fractions": ["1/4", 1], "from_zero": True, "fractions_of": ["22k"]}
    found = runs("finetune", with_(finetune={"part": part}))
    assert len(found) == 2 + 1 + 2
    assert {run.labels["model"] for run in found if "fraction" in run.labels} == {"22k"}
    assert {run.labels["model"] for run in found if "from_zero" in run.labels} == {"22k"}


def test_each_is_asked_its_own_test_before_and_after():
    found = runs("evaluate", with_(finetune={"part": PART}))
    own = [run for run in found if run.labels["suite"] == "part"]
    assert [run.labels.get("before") for run in own].count(True) == 2
    assert {run.spec.tasks for run in own} == {("finetune_part",)}
    suites = with_(finetune={"part": {**PART, "suites": None}})
    assert len(runs("evaluate", suites)) == len(found) + 2


def test_no_held_out_suite_asks_about_documents_that_were_learned_from():
    """Also of what fine-tuned models are fused to; rows of one's own are from no held-out one."""
    finetune = {name: {"examples": name, "suites": None} for name in ("part", "docstring")}
    fuse = {"members": {"finetune": ["part", "docstring"]}, "models": ["50k"], "suites": None}
    study = load(with_(finetune=finetune, fuse={"both": fuse}))
    of = {run.spec.id: run for run in study.runs.values() if run.spec.verb in ("tasks", "examples")}
    learned = {None: set()}
    for run in study.runs.values():
        if run.spec.verb == "evaluate" and run.spec.held_out:
            tasks = of[run.spec.held_out]
            named = [of[each].labels["finetune"] for each in tasks.spec.apart_from or ()]
            learned.setdefault(run.labels.get("finetune", run.labels.get("fuse")), set()).update(
                named
            )
            assert run.inputs[-1] == tasks.path
            assert tasks.inputs[1:] == tuple(of[each].path for each in tasks.spec.apart_from or ())
    assert learned == {
        **{None: set(), "part": {"part"}, "docstring": {"docstring"}},
        "both": {"part", "docstring"},
    }


def test_cooldowns_go_on_from_the_trunk_and_share_it():
    fuse = {"cooldowns": {"members": {"cooldowns": 4}, "models": ["50k"], "suites": []}}
    study = load(with_(fuse=fuse))
    (uniform, mixture) = [run for run in study.runs.values() if run.spec.verb == "fuse"]
    members = [study.run("train", each.run) for each in uniform.spec.members]
    assert [run.spec.cooldown_seed for run in members] == [None, 1, 2, 3]
    assert len({run.spec.trunk for run in members}) == 1
    assert all(members[0].path in run.inputs for run in members[1:])
    assert uniform.spec.line == 5 and mixture.spec.line is None
    control = study.run("train", uniform.labels["control"])
    own = members[0].spec
    cooldown = (own.steps - own.trunk_steps) * own.batch_tokens
    assert control.spec.tokens == own.trunk_steps * own.batch_tokens + 4 * cooldown
    assert control.labels["role"] == "control" and members[0].path in control.inputs
    (probe,) = [
        run
        for run in study.runs.values()
        if getattr(run.spec, "members", None) and run.spec.verb == "probe"
    ]
    assert len(probe.spec.members) == 4 and probe.spec.phases == ("prefill", "decode")


def test_seeds_that_the_ladder_has_are_not_trained_twice():
    given = with_(fuse={"seeds": {**SEEDS, "methods": ["mixture"]}})
    alone = runs("train", given)
    given["train"]["seeds"] = [0, 1]
    assert len(runs("train", given)) == len(alone) - 1 + 2 * 2


def test_tuned_models_of_one_base_are_asked_all_their_tests():
    finetune = {"part": PART, "doc": {**PART, "examples": "docstring"}}
    fuse = {"tuned": {"members": {"finetune": ["part", "doc"]}, "models": ["50k"], "suites": []}}
    study = load(with_(finetune=finetune, fuse=fuse))
    asked = [run for run in study.runs.values() if getattr(run.spec, "fuse", None)]
    assert (
        sorted(run.spec.tasks for run in asked)
        == [("finetune_doc",)] * 2 + [("finetune_part",)] * 2
    )


def test_rows_of_ones_own(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"t{n}", "label": "a"}) + "\n" for n in range(9)))
    mine = {"examples": str(rows), "prompt": "{text} ->", "answer": " {label}", "choices": True}
    (examples,) = runs("examples", with_(finetune={"mine": mine}))
    assert examples.inputs[1:] == (str(rows),)
    assert examples.spec.corpus.source == "files"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": "{txt} ->"}, ["finetune.mine.prompt", "'txt'", "'text'"]),
        ({"answer": " {lable}"}, ["finetune.mine.answer", "'lable'", "'label'", "rows.jsonl"]),
        ({"answer": " yes"}, ["finetune.mine.answer", "names no column"]),
        ({"prompt": "{text"}, ["finetune.mine.prompt", "brace"]),
        ({"document": "page"}, ["finetune.mine.document", "'page'"]),
        ({"choices": None}, ["finetune.mine.choices", "missing", "false where they are written"]),
        ({"examples": "README.md"}, ["finetune.mine.examples", "has no columns"]),
    ],
)
def test_rows_that_lack_what_is_asked_for(tmp_path, change, says):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": "a", "label": 1}) + "\n")
    mine = {"examples": str(rows), "prompt": "{text} ->", "answer": " {label}", "choices": True}
    message = refused(with_(finetune={"mine": {**mine, **change}}))
    for words in says:
        assert words in message, message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": "{txt} ->"}, ["finetune.mine.prompt", "'txt'", "'text'"]),
        ({"document": "page"}, ["finetune.mine.document", "'page'", "rows.parquet"]),
    ],
)
def test_columns_of_a_parquet_file_are_known_before_anything_runs(tmp_path, change, says):
    rows = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"text": "a", "label": "b"}]), rows)
    mine = {"examples": str(rows), "prompt": "{text} ->", "answer": " {label}", "choices": True}
    assert runs("examples", with_(finetune={"mine": mine}))
    message = refused(with_(finetune={"mine": {**mine, **change}}))
    for words in says:
        assert words in message, message


def test_docstrings_are_of_python_code(tmp_path):
    (tmp_path / "notes.txt").write_text("a note\n" * 5_000)
    given = with_(data={"corpus": str(tmp_path)}, finetune={"mine": {"examples": "docstring"}})
    message = refused(given)
    assert "finetune.mine.examples" in message and ".txt files alone" in message
    (tmp_path / "code.py").write_text("x = 1\n" * 5_000)
    assert runs("examples", given)


@pytest.mark.parametrize(
    ("finetune", "says"),
    [
        ({"examples": "prat"}, ["finetune.mine", "examples", "'prat'", "docstring, part"]),
        (
            {"examples": "python-stdlib", "prompt": "{text}", "answer": "a", "choices": True},
            ["finetune.mine.examples", "'python-stdlib'", "part"],
        ),
        ({"examples": "part", "prompt": "{text}"}, ["finetune.mine", "prompt", "part has its own"]),
        ({"examples": "part", "models": ["51k"]}, ["finetune.mine.models", "'51k'", "'50k'"]),
        ({"examples": "part", "budgets": ["1M"]}, ["finetune.mine.budgets", "1e+06"]),
        ({"examples": "part", "fractions": ["3/2"]}, ["fractions[0]", "'3/2'", "1/16"]),
        ({"examples": "part", "fractions": [1, "1/1"]}, ["fractions", "twice"]),
        ({"examples": "part", "suites": ["linse"]}, ["finetune.mine.suites", "'lines'"]),
        ({"examples": "part", "validation": 0.5, "test": 0.5}, ["validation, test", "train"]),
        ({"examples": "part", "context": 512}, ["finetune.mine.context", "train.context"]),
        ({"examples": "part", "chat_template": True}, ["finetune.mine.chat_template"]),
        ({"examples": "part", "fractions_of": ["51k"]}, ["finetune.mine.fractions_of", "'51k'"]),
        (
            {"examples": "part", "fractions": ["1/4"], "fractions_of": ["50k"]},
            ["finetune.mine.fractions", "add 1"],
        ),
        (
            {"examples": "part", "methods": ["lora"], "lora": {"rank": 64}},
            ["finetune.mine.lora.rank", "64", "width of 22k"],
        ),
        ({"examples": "part", "epochs": 3}, ["finetune.mine", "'epochs'"]),
        ({"examples": "part", "lora": {"rank": 4}}, ["finetune.mine.lora", "methods: [lora]"]),
    ],
)
def test_a_fine_tuning_that_cannot_be(finetune, says):
    message = refused(with_(finetune={"mine": finetune}))
    for words in says:
        assert words in message, message


@pytest.mark.parametrize(
    ("fusion", "says"),
    [
        ({"members": ["50k"]}, ["fuse.mine", "single one"]),
        ({"members": ["50k", "51k"]}, ["fuse.mine.members", "'51k'"]),
        ({"members": ["22k", "50k"]}, ["fuse.mine.methods", "uniform", "mixture or product"]),
        ({"members": {"seeds": 3}}, ["fuse.mine", "allow_unrelated: true"]),
        ({"members": ["22k", "50k"], "weighting": "mean"}, ["fuse.mine.weighting", "softmax"]),
        ({"members": {"cooldowns": 1}}, ["fuse.mine.members.cooldowns"]),
        ({"members": {"cooldowns": 2, "seeds": 2}}, ["fuse.mine.members", "give one of"]),
        ({"members": {"finetune": ["part"]}}, ["fuse.mine.members", "another fine-tuning"]),
        ({"members": {"finetune": ["prat"]}}, ["fuse.mine.members", "'prat'", "'part'"]),
        ({"members": {"cooldowns": 3}, "methods": ["slerp"]}, ["slerp", "two"]),
        ({"members": {"cooldowns": 2}, "methods": ["given"]}, ["fuse.mine.weights", "missing"]),
        (
            {"members": {"cooldowns": 2}, "weights": [0.5, 0.5]},
            ["fuse.mine.weights", "leave them out"],
        ),
        ({"members": {"cooldowns": 2}, "methods": ["mean"]}, ["fuse.mine.methods[0]", "mixture"]),
        (
            {"members": {"cooldowns": 2}, "methods": ["given"], "weights": [0.5, 0.6]},
            ["weights", "1.1", "not to one"],
        ),
        (
            {"members": {"cooldowns": 3}, "methods": ["given"], "weights": [0.5, 0.5]},
            ["fuse.mine.weights", "2 for 3"],
        ),
        (
            {"members": {"cooldowns": 2}, "methods": ["given"], "weights": ["nan", 1]},
            ["fuse.mine.weights[0]", "nan"],
        ),
        ({"members": {"cooldowns": 2}, "line": 2}, ["fuse.mine.line", "3 or more"]),
        ({"members": {"cooldowns": 2}, "temperature": 0}, ["fuse.mine.temperature"]),
        (
            {"members": {"cooldowns": 2}, "weighting": "softmax", "methods": ["uniform"]},
            ["weighting"],
        ),
        ({"members": {"cooldowns": 2}, "budget": "1M"}, ["fuse.mine.budget", "1e+06"]),
        ({"members": {"cooldowns": 2}, "methods": ["mergekit"]}, ["configuration"]),
    ],
)
def test_a_fusion_that_cannot_be(fusion, says):
    message = refused(with_(finetune={"part": PART}, fuse={"mine": fusion}))
    for words in says:
        assert words in message, message


def test_cooldowns_need_a_trunk():
    given = with_(fuse={"mine": {"members": {"cooldowns": 2}}})
    given["train"]["schedule"] = "cosine"
    given["train"].pop("horizon")
    assert "train.schedule: wsd" in refused(given)
