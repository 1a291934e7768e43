"""A model behind a server gives the scores that it gives in this process.

vLLM itself is not here: a process that answers in its words, with a real Llama, stands in.
"""

import sys
from importlib.util import find_spec

import llama_server
import pyarrow.parquet as pq
import pytest
from tiny_llama import CONTEXT, checkpoint

from llama_bench.measure import evaluate
from llama_bench.measure.probing import vllm_server
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec, Pretrained

ROWS = """
import datasets
def load(which, **_):
    rows = {
        "chosen": [
            {"q": "import ", "c": ["os", "sys, re"], "a": 0},
            {"q": "for line in ", "c": ["lines:", "", "xs:"], "a": 2},
            {"q": "", "c": ["def f():", "def f("], "a": 1},
        ],
        "whole": [{"text": "class Reader:\\n    pass\\n"}, {"text": "x = 1\\n" * 400}],
        "made": [{"q": "import ", "a": "os"}, {"q": "def main(", "a": "):"}],
    }
    return {"test": datasets.Dataset.from_list(rows[which])}
"""
HEAD = """
task: {name}
custom_dataset: !function rows.load
dataset_kwargs: {{which: {name}}}
test_split: test
target_delimiter: ""
"""
TASKS = {
    "chosen": "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: c\ndoc_to_target: a\n",
    "whole": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n",
    "made": "output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\n"
    'generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}\n'
    "metric_list: [{metric: exact_match}]\n",
}


@pytest.fixture
def asked(prepared, tmp_path):
    """A model's folder, a folder of tasks."""
    model, folder = checkpoint(tmp_path / "checkpoint", prepared), tmp_path / "tasks"
    folder.mkdir()
    (folder / "rows.py").write_text(ROWS)
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(HEAD.format(name=name) + text)
    return [model, folder]


def run(asked, folder, **given):
    folder.mkdir()
    given = {"tasks": tuple(TASKS), **given}
    spec = EvaluateSpec(pretrained=Pretrained(digest="0"), include="digest", **given)
    return evaluate.run(spec, folder, asked, lambda *a: None)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{llama_server.__file__}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(vllm_server.PYTHON, str(python))


def test_scores_are_those_of_the_same_model_in_this_process(asked, tmp_path, installed):
    here = run(asked, tmp_path / "here")
    there = run(asked, tmp_path / "there", engine="vllm", prompts=("import",), prompt_tokens=6)
    assert here["failed"] == there["failed"] == []
    assert there["model"]["engine"] == "vllm" and there["model"]["context"] == CONTEXT
    assert there["parameters"] == here["parameters"]
    for mine, theirs in zip(here["scores"], there["scores"], strict=True):
        loose = {"rel": 1e-2} if mine["task"] == "whole" else {"rel": 1e-4, "abs": 1e-6}
        assert theirs["value"] == pytest.approx(mine["value"], **loose), mine["metric"]
        assert theirs["unscored"] == mine["unscored"] and theirs["items"] == mine["items"]
    tables = [pq.read_table(tmp_path / at / "items.parquet") for at in ("here", "there")]
    for column in ("prompt", "text", "is_greedy", "reason"):
        assert tables[0][column] == tables[1][column], column
    assert [row["decoding"] for row in there["samples"]] == ["greedy", "temperature 0.8"]


def texts(folder):
    return pq.read_table(folder / "items.parquet")["text"].to_pylist()


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 50.0},
        {"do_sample": True, "temperature": 3.0, "top_k": 1},  # of one token: nothing is drawn
        {"do_sample": True, "temperature": 3.0, "top_k": 0, "min_p": 1.0},
    ],
)
def test_text_is_written_under_the_same_settings(asked, tmp_path, installed, settings):
    """Each alone decides what is written."""
    wanted = {"tasks": ("made",), "generation": {"until": [], "max_gen_toks": 24, **settings}}
    assert run(asked, tmp_path / "here", **wanted)["failed"] == []
    assert run(asked, tmp_path / "there", **wanted, engine="vllm")["failed"] == []
    assert texts(tmp_path / "here") == texts(tmp_path / "there")
    plain = {**wanted, "generation": {"until": [], "max_gen_toks": 24}}
    run(asked, tmp_path / "plain", **plain)
    same = texts(tmp_path / "plain") == texts(tmp_path / "here")
    assert same is ("do_sample" in settings)


@pytest.mark.parametrize("until, cut", [(["never"], 2), (list("eainrst _(\n"), 0)])
def test_an_answer_that_the_window_cuts_is_counted(asked, tmp_path, installed, until, cut):
    """More than the window is asked for; a stop string ends an answer before."""
    generation = {"until": until, "max_gen_toks": CONTEXT}
    found = run(asked, tmp_path / "run", tasks=("made",), generation=generation, engine="vllm")
    assert {row["truncated"] for row in found["scores"]} == {cut}


def test_a_setting_that_a_server_would_leave_undone_is_named(asked, tmp_path, installed):
    with pytest.raises(Refusal, match=r"vllm does not do num_beams") as caught:
        run(asked, tmp_path / "own", engine="vllm", generation={"num_beams": 4})
    assert caught.value.status == "refused" and not (tmp_path / "own/vllm.log").exists()
    path = asked[1] / "made.yaml"
    path.write_text(path.read_text().replace("do_sample: false", "num_beams: 4"))
    result = run(asked, tmp_path / "task", engine="vllm")
    (failed,) = result["failed"]
    assert failed["task"] == "made" and "vllm does not do num_beams" in failed["reason"]
    assert {row["task"] for row in result["scores"]} == {"chosen", "whole"}


def test_without_vllm_the_run_is_refused_before_anything_is_loaded(asked, tmp_path, monkeypatch):
    monkeypatch.delenv(vllm_server.PYTHON, raising=False)
    with pytest.raises(Refusal, match="vllm is not installed") as caught:
        run([tmp_path / "nowhere", asked[1]], tmp_path / "run", engine="vllm")
    assert caught.value.status == "refused"


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is here")
def test_without_torchao_quantized_weights_are_refused_with_what_to_do(asked, tmp_path):
    with pytest.raises(Refusal, match="torchao") as caught:
        run(asked, tmp_path / "small", quantization="int8")
    assert caught.value.status == "refused"


def test_quantized_weights_answer_nearly_as_whole_ones(asked, tmp_path):
    pytest.importorskip("torchao", reason="torchao is the extra `quantized`")
    small = run(asked, tmp_path / "small", quantization="int8")
    whole = run(asked, tmp_path / "whole", precision="bfloat16")
    assert small["model"]["quantization"] == "int8" and small["model"]["dtype"] == "bfloat16"
    assert small["parameters"] == whole["parameters"]
    for mine, theirs in zip(small["scores"], whole["scores"], strict=True):
        if mine["metric"] in ("bits_per_byte", "gold_bits_per_byte"):
            assert mine["value"] == pytest.approx(theirs["value"], rel=0.1)
