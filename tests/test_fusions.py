"""Fusions of a study: which runs they ask for beside their members, and what these rest on."""

import copy
import json
import shutil

import pytest

from llama_bench.study import UserError, load

STUDY = {
    "models": {"train": [{"size": "22k"}, {"size": "50k"}]},
    "train": {"budgets": ["250k", "500k"], "horizon": "500k", "batch": 2},
    "probe": {"phases": ["prefill", "decode", "train"]},
}
PART = {"examples": "part", "suites": [], "steps": 30}


def with_(**sections) -> dict:
    return {**copy.deepcopy(STUDY), **sections}


def runs(study, verb: str) -> list:
    return [run for run in study.runs.values() if run.spec.verb == verb]


def methods(given: dict) -> list[str]:
    return sorted(run.spec.method for run in runs(load(given), "fuse"))


def refused(given: dict) -> str:
    with pytest.raises(UserError) as caught:
        load(given)
    return str(caught.value)


def test_controls_among_the_methods_are_added():
    def asked(members, **more):
        return with_(fuse={"mine": {"members": members, "models": ["22k"], **more}})

    greedy = asked({"cooldowns": 2}, methods=["greedy"])
    assert methods(greedy) == ["greedy", "mixture", "uniform"]
    lined = [run.spec.method for run in runs(load(greedy), "fuse") if run.spec.line]
    assert lined == ["greedy"], "the controls rename nothing"
    assert methods(asked({"cooldowns": 2}, methods=["greedy"], control=False)) == ["greedy"]
    assert methods(asked({"cooldowns": 2}, methods=["product"])) == [
        "mixture",
        "product",
        "uniform",
    ]
    # strangers have no average unless they are asked for one
    assert methods(asked({"seeds": 2}, methods=["product"])) == ["mixture", "product"]


def test_a_fusion_of_fine_tunings_has_one_with_all_their_steps():
    """Of one base: one fine-tuning after the other, each with its members' steps."""
    part = {**PART, "seeds": [0, 1, 2]}
    finetune = {"part": part, "doc": {**PART, "examples": "docstring", "steps": 20}}
    tuned = {"members": {"finetune": ["part", "doc"]}, "models": ["50k"], "suites": []}
    study = load(with_(finetune=finetune, fuse={"tuned": tuned}))
    first, second = (run for run in runs(study, "finetune") if run.labels.get("role"))
    assert (first.spec.steps, second.spec.steps) == (90, 20)
    members = [study.run("finetune", each.run) for each in runs(study, "fuse")[0].spec.members]
    assert first.spec.base == members[0].spec.base and first.inputs == members[0].inputs
    assert first.spec.seed == 3 and second.spec.seed == 1
    assert second.spec.base.run == first.spec.id and second.inputs[2] == first.path
    assert second.spec.examples == members[3].spec.examples
    judging = [run for run in runs(study, "fuse") if run.spec.control]
    assert [run.spec.method for run in judging] == ["uniform"]
    assert judging[0].spec.control.run == second.spec.id and judging[0].inputs[-1] == second.path
    assert {run.labels["control"] for run in runs(study, "fuse")} == {second.spec.id}
    asked = [
        run.spec.tasks for run in runs(study, "evaluate") if run.labels.get("method") == "control"
    ]
    assert sorted(asked) == [("finetune_doc",), ("finetune_part",)]


def test_named_trainings_of_one_shape_have_one_with_all_their_tokens():
    shape = {"layers": 2, "width": 32, "heads": 2}
    models = {
        "train": [
            {"name": "slow", **shape, "learning_rate": 1e-3},
            {"name": "fast", **shape, "learning_rate": 1e-2},
            {"size": "50k"},
        ]
    }
    alike = {"members": ["slow", "fast"], "methods": ["mixture"]}
    study = load(with_(models=models, fuse={"mine": alike}))
    (control,) = [run for run in runs(study, "train") if run.labels["role"] == "control"]
    assert control.spec.tokens == 1_000_000 and control.labels["fuse"] == "mine"
    apart = {"members": ["slow", "50k"], "methods": ["mixture"]}
    study = load(with_(models=models, fuse={"mine": apart}))
    assert not [run for run in runs(study, "train") if run.labels["role"] == "control"]


def test_members_of_a_budget_held_out_in_flops_wait_for_its_forecast():
    given = with_(
        train={"budgets": {"flops": [1e12, 3e12]}, "batch": 2},
        hold_out={"budgets": [3e12]},
        fuse={"seeds": {"members": {"seeds": 2}, "models": ["22k"], "methods": ["mixture"]}},
    )
    study = load(given)
    members = [run for run in runs(study, "train") if run.labels["role"] == "member"]
    (own,) = [
        run
        for run in runs(study, "train")
        if run.labels["role"] == "ladder" and run.spec.tokens == members[0].spec.tokens
    ]
    assert own.after and [run.after for run in members] == [own.after]


@pytest.fixture
def pretrained(shared) -> dict:
    path = str(shared("models", "stories260K"))
    return {**STUDY["models"], "pretrained": [{"name": "stories", "path": path}]}


def test_fine_tunings_of_a_pretrained_base_are_fused(pretrained):
    """Where no model is named, of every base."""
    finetune = {"part": {**PART, "seeds": [0, 1]}}
    for models in ([], ["stories"]):
        tuned = {"members": {"finetune": ["part"]}, "models": models}
        study = load(with_(models=pretrained, finetune=finetune, fuse={"tuned": tuned}))
        found = [run for run in runs(study, "fuse") if run.labels["model"] == "stories"]
        assert sorted(run.spec.method for run in found) == ["mixture", "uniform"]
        members = [study.run("finetune", each.run) for each in found[0].spec.members]
        assert [run.spec.seed for run in members] == [0, 1]
        assert {run.spec.base.pretrained.digest for run in members} != {None}
        assert len(runs(study, "fuse")) == (2 if models else 6)
    message = refused(with_(models=pretrained, fuse={"a": {**CUT, "models": ["stories"]}}))
    assert "fuse.a.models" in message and "'stories'" in message


CUT = {"members": {"cooldowns": 2}}


def test_an_ensemble_of_a_local_llama_is_probed(pretrained, shared, tmp_path):
    copied = shutil.copytree(shared("models", "stories260K"), tmp_path / "copy")
    models = copy.deepcopy(pretrained)
    models["pretrained"].append({"name": "copy", "path": str(copied)})
    fuse = {"two": {"members": ["stories", "copy"], "methods": ["mixture"], "control": False}}
    study = load(with_(models=models, fuse=fuse))
    (probe,) = [run for run in runs(study, "probe") if run.spec.members]
    first, second = probe.spec.members
    assert first == second and (first.layers, first.width, probe.spec.vocab_size) == (5, 64, 512)


def test_members_of_unlike_tokenizers_are_refused_before_anything_runs(
    pretrained, shared, tmp_path
):
    copied = shutil.copytree(shared("models", "stories260K"), tmp_path / "copy")
    content = json.loads((copied / "tokenizer.json").read_text())
    content["padding"] = {"strategy": "BatchLongest"}  # how batches are padded splits no text
    (copied / "tokenizer.json").write_text(json.dumps(content))
    models = copy.deepcopy(pretrained)
    models["pretrained"].append({"name": "copy", "path": str(copied)})
    fuse = {"two": {"members": ["stories", "copy"], "methods": ["mixture"]}}
    load(with_(models=models, fuse=fuse))
    content["normalizer"] = {"type": "Lowercase"}
    (copied / "tokenizer.json").write_text(json.dumps(content))
    message = refused(with_(models=models, fuse=fuse))
    assert "fuse.two.members" in message and "different tokenizers" in message
    (copied / "tokenizer.json").unlink()
    message = refused(with_(models=models, fuse=fuse))
    assert "fuse.two.members" in message and "has no tokenizer.json" in message


def test_members_trained_here_and_elsewhere_need_one_vocabulary(pretrained):
    """Before the training: by the number of ids, or, with data.tokenizer, by the tokenizer."""
    fuse = {"two": {"members": ["22k", "stories"], "methods": ["mixture"]}}
    message = refused(with_(models=pretrained, fuse=fuse))
    assert "fuse.two.members" in message and "22k: 1024, stories: 512" in message
    load(with_(models=pretrained, fuse=fuse, data={"vocab_size": 512}))  # the job will see
    path = pretrained["pretrained"][0]["path"]
    load(with_(models=pretrained, fuse=fuse, data={"tokenizer": {"path": path}}))
    other = path.replace("260K", "3M")
    message = refused(with_(models=pretrained, fuse=fuse, data={"tokenizer": {"path": other}}))
    assert "fuse.two.members" in message and "different tokenizers" in message


def test_weights_of_unlike_shapes_or_strangers_are_not_averaged(pretrained, shared, tmp_path):
    """Seen in config.json before anything is trained, whichever kind of model it is."""
    models = copy.deepcopy(pretrained)
    for name, heads in (("copy", None), ("wide", 8), ("other", 4)):
        folder = shutil.copytree(shared("models", "stories260K"), tmp_path / name)
        if heads:
            content = json.loads((folder / "config.json").read_text())
            content |= {"num_key_value_heads": heads}
            (folder / "config.json").write_text(json.dumps(content))  # other bytes in any case
        models["pretrained"].append({"name": name, "path": str(folder)})
    data = {"tokenizer": {"path": models["pretrained"][0]["path"]}}

    def given(*members, **fusion):
        return with_(models=models, data=data, fuse={"two": {"members": [*members], **fusion}})

    allowed = {"allow_unrelated": True}
    message = refused(given("22k", "stories", **allowed))
    assert "fuse.two.methods: uniform" in message and "num_hidden_layers: " in message
    assert "mixture or product" in message
    assert load(given("stories", "copy")).runs, "the same weights are of one family"
    message = refused(given("stories", "wide", **allowed))
    assert "stories and wide differ (num_key_value_heads: 4 and 8)" in message
    merged = {"methods": ["mergekit"], "configuration": {}, **allowed}
    assert "fuse.two.line: " in refused(given("stories", "wide", **merged))
    assert load(given("stories", "wide", **merged, line=0)).runs
    message = refused(given("stories", "other"))
    assert "fuse.two.members: stories, other have no common ancestor" in message
    assert load(given("stories", "other", **allowed)).runs


def test_relatives_trained_elsewhere_are_told_by_their_base(pretrained, shared, tmp_path):
    """By a name that both give, or that of one of them; no other run asks for it."""
    models = copy.deepcopy(pretrained)
    for name in ("tuned", "again"):
        folder = shutil.copytree(shared("models", "stories260K"), tmp_path / name)
        content = json.loads((folder / "config.json").read_text()) | {"note": name}
        (folder / "config.json").write_text(json.dumps(content))
        models["pretrained"].append({"name": name, "path": str(folder)})

    def members(*named, **bases):
        given = copy.deepcopy(models)
        for model in given["pretrained"]:
            model |= {"base": bases[model["name"]]} if model["name"] in bases else {}
        fuse = {"two": {"members": [*named], "methods": ["uniform"]}}
        study = load(with_(models=given, fuse=fuse, finetune={"part": {**PART, "seeds": [0]}}))
        (mean,) = (run.spec for run in runs(study, "fuse") if run.spec.method == "uniform")
        others = {
            path
            for path, run in study.runs.items()
            if "fuse" not in (run.spec.verb, *run.spec.model_dump(exclude_none=True))
        }
        return mean.members, others

    with pytest.raises(UserError, match=r"is told by base, in models\.pretrained"):
        members("tuned", "again")
    with pytest.raises(UserError, match="no common ancestor"):
        members("tuned", "again", tuned="llama-1", again="llama-2")
    with pytest.raises(UserError, match="no common ancestor"):
        members("tuned", "again", tuned="llama-1")
    (tuned, again), others = members("tuned", "again", tuned="llama-1", again="llama-1")
    assert tuned.base == again.base == "llama-1"
    (base, tuned), same = members("stories", "tuned", tuned="stories")
    assert base.base is None and tuned.base == base.pretrained.digest
    assert same == others and len(same) > 5, "declaring a base renames fusions alone"
    message = refused(with_(models={"pretrained": [{**models["pretrained"][0], "base": ""}]}))
    assert "models.pretrained" in message and "base" in message
