"""What may be evaluated, and what is refused by name: on real folders, damaged in real ways."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_llama import checkpoint
from training import spec_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_bench import records
from llama_bench.measure import evaluate, model
from llama_bench.measure.evaluation import adapters, loading
from llama_bench.measure.job import carry_out
from llama_bench.measure.probing import vllm_server
from llama_bench.measure.training import state as states
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec, Pretrained


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", prepared)


@pytest.fixture
def copy(local, tmp_path):
    return shutil.copytree(local, tmp_path / "copy")


@pytest.fixture(params=["transformers", "vllm"])
def refusal(request, tmp_path, monkeypatch):
    """What an engine says of a folder before any weight is loaded, or a server started."""
    engine = None if request.param == "transformers" else request.param
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 0.0.test || touch "$0.started"\n')
    python.chmod(0o755)
    monkeypatch.setenv(vllm_server.PYTHON, str(python))

    def ask(folder, **given):
        pretrained = Pretrained(digest="0", **given)
        spec = EvaluateSpec(pretrained=pretrained, tasks=("none",), engine=engine)
        with pytest.raises(Refusal) as caught:
            adapters.Last().opened(spec, folder, tmp_path)
        assert "\n" not in caught.value.reason and str(folder) in caught.value.reason
        assert not Path(f"{python}.started").exists()
        return caught.value

    return ask


def test_a_pickle_is_never_read(copy, tmp_path, refusal):
    """A checkpoint that would run code when it is unpickled: it is refused, and does not run."""
    traces = tmp_path / "traces"
    weights = copy / "model.safetensors"
    weights.unlink()

    class Code:
        def __reduce__(self):
            return (traces.touch, ())

    torch.save({"lm_head.weight": Code()}, copy / "pytorch_model.bin")
    found = refusal(copy)
    assert found.status == "refused" and "pickle" in found.reason
    assert not traces.exists()


def test_code_of_the_models_own_is_not_run_unless_asked(copy, refusal):
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text("raise SystemExit('was run')\n")
    found = refusal(copy)
    assert found.status == "refused" and "trust_remote_code: true" in found.reason
    with pytest.raises(SystemExit, match="was run"):
        spec = EvaluateSpec(
            pretrained=Pretrained(digest="0", trust_remote_code=True), tasks=("none",)
        )
        loading.load(spec, copy)


@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_a_corrupt_safetensors_file_is_refused(copy, damage, refusal):
    path = copy / "model.safetensors"
    content = path.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "header": b"\xff" * 64, "empty": b""}
    path.write_bytes(damaged[damage])
    found = refusal(copy)
    assert found.status == "refused" and "model.safetensors cannot be read" in found.reason


def test_what_is_no_model_is_missing(copy, tmp_path, refusal):
    (copy / "model.safetensors").unlink()
    assert refusal(copy).status == refusal(tmp_path).status == "missing"


def test_more_ids_than_the_model_has_are_refused(copy, refusal):
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens(["<|one more|>"])
    tokenizer.save_pretrained(copy)
    found = refusal(copy)
    assert found.status == "refused" and "513 ids, the model 512" in found.reason


def test_a_folder_without_a_tokenizer_is_refused(copy, refusal):
    for path in copy.glob("*token*"):
        path.unlink()
    assert "no tokenizer" in refusal(copy).reason


def test_a_model_that_several_gpus_do_not_hold_is_refused(local, monkeypatch):
    """It would be kept in host memory, or on the disk, and take forever."""
    monkeypatch.setattr(model, "gpus", lambda: 2)
    spec = EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=("none",))
    with pytest.raises(Refusal, match="does not fit on 2 GPUs") as caught:
        loading.load(spec, local)
    assert caught.value.status == "out-of-memory"


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    spec = spec_of(prepared, tokens=60_000)
    path = tmp_path_factory.mktemp("train") / spec.id / "record.json"
    carry_out("train", spec.canonical(), path, [prepared])
    return path


def bits(record, inputs, folder, **given):
    folder.mkdir()
    spec = EvaluateSpec(train=record.parent.name, tasks=("told",), include="digest", **given)
    result = evaluate.run(spec, folder, [record, *inputs], lambda done, of, note="": None)
    return result["scores"][0]["value"]


def test_trunk_and_averaged_weights_are_evaluated_like_the_checkpoint(trained, tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "rows.py").write_text(
        "import datasets\n"
        "def load(**_):\n"
        "    text = 'import os\\nclass Reader:\\n    def read(self):\\n        return 1\\n'\n"
        "    return {'test': datasets.Dataset.from_list([{'text': text}, {'text': text[9:]}])}\n"
    )
    (folder / "told.yaml").write_text(
        "task: told\ncustom_dataset: !function rows.load\ntest_split: test\n"
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n"
        "metric_list: [{metric: bits_per_byte}]\n"
    )
    found = {
        which: bits(trained, [folder], tmp_path / str(which), state=which)
        for which in (None, "trunk", "averaged")
    }
    assert len(set(found.values())) == 3
    spec = records.read(trained).spec
    state = states.load(trained.parent / "trunk.pt", spec_from(spec).trunk)
    for which, weights in (("trunk", state.model), ("averaged", state.average)):
        built = AutoModelForCausalLM.from_pretrained(trained.parent / "checkpoint")
        built.load_state_dict(weights, strict=False)
        by_hand = tmp_path / f"by-hand-{which}" / "checkpoint"
        shutil.copytree(trained.parent / "checkpoint", by_hand)
        built.save_pretrained(by_hand)
        again = bits(by_hand.parent / "record.json", [folder], tmp_path / f"again-{which}")
        assert again == found[which]


def spec_from(content):
    from llama_bench.specs import TrainSpec

    return TrainSpec.parse(json.dumps(content))


def test_a_training_without_a_trunk_has_no_state_to_evaluate(trained, tmp_path):
    shutil.copytree(trained.parent, tmp_path / "other")
    (tmp_path / "other" / "trunk.pt").unlink()
    spec = EvaluateSpec(train="other", tasks=("none",), state="averaged")
    with pytest.raises(Refusal, match=r"averaged weights \(trunk.pt\)") as caught:
        loading.load(spec, tmp_path / "other" / "record.json")
    assert caught.value.status == "missing"
