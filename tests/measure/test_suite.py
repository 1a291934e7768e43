"""A suite, task by task: what is finished is kept, what fails fails alone."""

import json
import os
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from tiny_llama import checkpoint

from llama_bench import records
from llama_bench.measure import evaluate
from llama_bench.measure.evaluation.finished import FOLDER
from llama_bench.specs import EvaluateSpec, Pretrained

TASK = """
task: {name}
custom_dataset: !function rows.load
dataset_kwargs: {{task: {name}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: label
target_delimiter: ""
"""
# every reading leaves a line; the task `killer` ends its process, once, as a power cut would
ROWS = """
import datasets, os, pathlib, signal
here = pathlib.Path(__file__).parent

def load(task, **_):
    with open(here / "read.txt", "a") as file:
        file.write(task + "\\n")
    if task == "killer" and not (here / "killed").exists():
        (here / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    row = {"question": f"the {task} is", "choices": [" blue", " red"], "label": 0}
    return {"test": datasets.Dataset.from_list([row, {**row, "label": 1}, row])}
"""


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", prepared)


@pytest.fixture
def include(tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "rows.py").write_text(ROWS)
    for name in ("first", "killer", "last"):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name))
    return folder


def spec_of(*names, **given):
    return EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=names, include="digest", **given)


def ask(local, include, folder, *names, **given):
    folder.mkdir(exist_ok=True)
    return evaluate.run(spec_of(*names, **given), folder, [local, include], lambda *a: None)


def test_a_killed_evaluation_goes_on_with_the_tasks_that_are_left(local, include, tmp_path):
    spec, folder = spec_of("first", "killer", "last"), tmp_path / "run"
    command = [sys.executable, "-m", "llama_bench", "evaluate", spec.canonical()]
    command += [str(folder / "record.json"), str(local), str(include)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run(command, env=environment, capture_output=True)
    assert first.returncode == -signal.SIGKILL
    assert not (folder / "record.json").exists() and (folder / FOLDER).is_dir()
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    read = (include / "read.txt").read_text().split()
    assert read == ["first", "killer", "killer", "last"]  # the first task was read once
    assert not (folder / FOLDER).exists()
    record = records.read(folder / "record.json")
    whole = ask(local, include, tmp_path / "whole", "first", "killer", "last")
    assert record.result["scores"] == json.loads(json.dumps(records.finite(whole["scores"])))
    names = ("items.parquet", "lm_eval.json")
    tables = [pq.read_table(at / names[0]) for at in (folder, tmp_path / "whole")]
    assert tables[0].equals(tables[1])
    texts = [(at / names[1]).read_text() for at in (folder, tmp_path / "whole")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "text, said",
    [
        ("task: [unclosed\n", "wrong"),
        ("task: wrong\noutput_type: walrus\n", "walrus"),
        (TASK.format(name="wrong") + "metric_list: [{metric: nosuchmetric}]\n", "nosuchmetric"),
        (TASK.format(name="wrong").replace("rows.load", "rows.nothing"), "nothing"),
    ],
)
def test_a_task_file_with_an_error_is_named_and_costs_no_other(
    local, include, tmp_path, text, said
):
    (include / "wrong.yaml").write_text(text)
    found = ask(local, include, tmp_path / "run", "first", "wrong", "last")
    (failed,) = found["failed"]
    assert failed["task"] == "wrong" and said in failed["reason"]
    assert {row["task"] for row in found["scores"]} == {"first", "last"}


def test_data_out_of_reach_is_an_accident_after_all_else_is_done(local, include, tmp_path):
    """Without HF_HUB_OFFLINE, a Hub that does not answer: to be tried again, nothing is lost."""
    (include / "afar.yaml").write_text(
        "task: afar\ndataset_path: nobody/nothing\ntest_split: test\n"
        "output_type: loglikelihood\ndoc_to_text: a\ndoc_to_target: b\n"
    )
    spec, folder = spec_of("afar", "last"), tmp_path / "run"
    command = [sys.executable, "-m", "llama_bench", "evaluate", spec.canonical()]
    command += [str(folder / "record.json"), str(local), str(include)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    environment["HF_HUB_DOWNLOAD_TIMEOUT"] = environment["HF_HUB_ETAG_TIMEOUT"] = "1"
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "out of reach: data of afar" in done.stderr
    assert not (folder / "record.json").exists()
    assert len(list((folder / FOLDER).glob("*.json"))) == 1


def test_a_groups_score_has_an_error_from_its_tasks(local, include, tmp_path):
    (include / "both.yaml").write_text(
        "group: both\ntask: [first, last]\n"
        "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    found = ask(local, include, tmp_path / "run", "both")
    acc = {row["task"]: row for row in found["scores"] if row["metric"] == "acc"}
    assert acc["both"]["items"] == 6
    expected = (acc["first"]["standard_error"] ** 2 + acc["last"]["standard_error"] ** 2) ** 0.5 / 2
    assert acc["both"]["standard_error"] == pytest.approx(expected)
    assert expected > 0
