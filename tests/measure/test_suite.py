"""A suite, task by task: what is finished is kept, what fails fails alone."""

import json
import os
import re
import signal
import subprocess
import sys

import lm_eval
import pyarrow.parquet as pq
import pytest
from lm_eval.tasks import TaskManager
from tiny_llama import adapter, checkpoint

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
# every reading leaves a line; the task `killer` ends its process, once, as a power cut would,
# `glutton` asks for more memory than there is, `broken` may have a row that cannot be read
ROWS = """
import datasets, os, pathlib, signal
here = pathlib.Path(__file__).parent

def load(task, **_):
    with open(here / "read.txt", "a") as file:
        file.write(task + "\\n")
    if task == "killer" and not (here / "killed").exists():
        (here / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "broken" and (here / "broken").exists():
        raise ValueError("a broken row")
    if task == "glutton":
        bytearray(1 << 60)
    row = {"question": f"the {task} is", "choices": [" blue", " red"], "label": 0}
    return {"test": datasets.Dataset.from_list([row, {**row, "label": 1}, row])}
"""


def _changed(line: str, to: str) -> str:
    return TASK.format(name="wrong").replace(line, to)


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", prepared)


@pytest.fixture
def include(tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "rows.py").write_text(ROWS)
    for name in ("first", "killer", "last", "broken", "glutton"):
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
        (
            TASK.format(name="wrong") + "metric_list: [{metric: acc_nrm}]\n",
            "metric_list: unknown metric 'acc_nrm'; did you mean 'acc_norm'?",
        ),
        (
            TASK.format(name="wrong") + "metric_list: [{metric: acc, aggregation: avg}]\n",
            "metric_list: a metric or its aggregation",
        ),
        (TASK.format(name="wrong") + "doc_to_txt: question\n", "did you mean 'doc_to_text'?"),
        (TASK.format(name="wrong") + "num_fewshot: 5\n", "num_fewshot: more examples"),
        (TASK.format(name="wrong") + "fewshot_split: train\n", "fewshot_split: "),
        (_changed("doc_to_target: label", "doc_to_target: {a: b}"), "doc_to_target: give"),
        (_changed("doc_to_target: label", 'doc_to_target: "{{lable}}"'), "'lable' is undefined"),
        (
            _changed("doc_to_target: label", "doc_to_target: lable"),
            "doc_to_target: unknown column 'lable'; did you mean 'label'?",
        ),
        (_changed("doc_to_text: question", ""), "doc_to_text: give"),
        (_changed("doc_to_choice: choices", "doc_to_choice: choises"), "doc_to_choice: give"),
        (
            "task: wrong\ndataset_path: json\ndataset_kwargs: {data_files: gone.jsonl}\n",
            "dataset_kwargs: the data cannot be read (FileNotFoundError",
        ),
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


ODD_ROWS = [
    {"choices": [" blue", ""], "label": 0},
    {"choices": [" blue", " red"], "label": 7},
    {"choices": [" blue", " red"], "label": -7},
    {"choices": [" blue", " red"], "label": None},
    {"choices": [], "label": 0},
    {"choices": None, "label": 0},
]


def test_odd_rows_are_items_that_cannot_be_scored_wherever_they_stand(local, include, tmp_path):
    """Each of them is the first row of a task once, where lm-eval cannot make the task."""
    many, names = len(ODD_ROWS), [f"odd{first}" for first in range(len(ODD_ROWS))]
    sound = [{"choices": [" blue", " red"], "label": label} for label in (0, 1, 1)]
    with (include / "rows.py").open("a") as file:
        for first, name in enumerate(names):
            rows = [*ODD_ROWS[first:], *ODD_ROWS[:first], *sound]
            rows = [{"question": "it is", **row} for row in rows]
            file.write(f"\n\ndef {name}(**_):\n    return as_test({rows})\n")
            text = TASK.format(name=name).replace("rows.load", f"rows.{name}")
            (include / f"{name}.yaml").write_text(text)
        file.write("\n\ndef as_test(rows):\n")
        file.write("    return {'test': datasets.Dataset.from_list(rows)}\n")
    found = ask(local, include, tmp_path / "run", *names)
    assert found["failed"] == []
    scores = {(row["task"], row["metric"]): row for row in found["scores"]}
    items = pq.read_table(tmp_path / "run" / "items.parquet").to_pylist()
    nothing, lost = "the continuation encodes to nothing", "its label is none of its choices"
    for first, name in enumerate(names):
        mine = [item for item in items if item["task"] == name]
        reasons = {item["doc_id"]: item["reason"] for item in mine if item["reason"]}
        said = [reasons.pop((place - first) % many) for place in range(many)]
        assert said == [nothing, lost, lost, lost, nothing, nothing] and not reasons
        given = [item["log_likelihood"] for item in mine if item["doc_id"] == many]
        acc = scores[name, "acc"]
        assert (acc["items"], acc["unscored"]) == (many + 3, many)
        assert acc["value"] == pytest.approx([0, 1, 1].count(given.index(max(given))) / (many + 3))
        assert scores[name, "gold_probability"]["items"] == 3


def test_accuracy_by_length_is_there_once_whether_a_task_lists_it_or_not(local, include, tmp_path):
    rows = (include / "rows.py").read_text().replace('" red"', '" as red as a rose"')
    (include / "rows.py").write_text(rows)
    for name, metrics in (
        ("both", "[{metric: acc}, {metric: acc_norm}]"),
        ("one", "[{metric: acc}]"),
    ):
        text = TASK.format(name=name).replace(f"{{task: {name}}}", "{task: last}")
        (include / f"{name}.yaml").write_text(text + f"metric_list: {metrics}\n")
    found = ask(local, include, tmp_path / "run", "both", "one")
    norm = {row["task"]: row for row in found["scores"] if row["metric"] == "acc_norm"}
    assert sum(row["metric"] == "acc_norm" for row in found["scores"]) == 2
    for key in ("value", "standard_error", "chance", "items", "higher_is_better", "filter"):
        assert norm["one"][key] == pytest.approx(norm["both"][key]), key


def test_what_a_model_wrote_is_kept_beside_what_a_filter_made_of_it(local, include, tmp_path):
    text = TASK.format(name="written").replace("multiple_choice", "generate_until")
    text = text.replace("{task: written}", "{task: last}").replace("doc_to_choice: choices\n", "")
    text += "generation_kwargs: {max_gen_toks: 9, do_sample: false, until: []}\nrepeats: 2\n"
    text += "filter_list:\n- {name: two, filter: [{function: regex, regex_pattern: '(..)'}, "
    (include / "written.yaml").write_text(text + "{function: take_first}]}\n")
    ask(local, include, tmp_path / "run", "written")
    for row in pq.read_table(tmp_path / "run" / "items.parquet").to_pylist():
        one, other = row["written"]
        assert one == other and len(one) > 2
        assert row["text"] == re.findall("..", one)[0].strip()
    ask(local, include, tmp_path / "plain", "last")
    table = pq.read_table(tmp_path / "plain" / "items.parquet")
    assert table["written"].null_count == len(table) > 0


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("metric_list:\n- {metric: accurracy, aggregation: mean, higher_is_better: true}\n"
         "- {metric: acc}\n", "unknown metric 'accurracy'; did you mean"),
        ("metric_list: [{metric: bleu}, {metric: acc}]\n",
         "no value of bleu, which metric_list asks for: the task's output_type, multiple_choice"),
    ],
)  # fmt: skip
def test_a_metric_without_a_value_is_told(local, include, tmp_path, task, said):
    (include / "told.yaml").write_text(
        TASK.format(name="told").replace("{task: told}", "{task: last}") + task
    )
    found = ask(local, include, tmp_path / "run", "told", "last")
    (row,) = found["failed"]
    assert row["task"] == "told" and said in row["reason"]
    assert {row["task"] for row in found["scores"] if row["metric"] == "acc"} == {"told", "last"}


def test_a_groups_mean_is_of_the_tasks_that_list_the_metric(local, include, tmp_path):
    rows = (include / "rows.py").read_text().replace('" red"', '" as red as a rose"')
    (include / "rows.py").write_text(rows)
    for name, metrics, gold in (("norm", "acc_norm", "label"), ("acc", "acc", '"{{1 - label}}"')):
        text = TASK.format(name=name).replace(f"{{task: {name}}}", "{task: last}")
        text = text.replace("doc_to_target: label", f"doc_to_target: {gold}")
        (include / f"{name}.yaml").write_text(text + f"metric_list: [{{metric: {metrics}}}]\n")
    lists = "[{metric: acc_norm}, {metric: acc}, {metric: brier_score}]"
    text = f"group: both\ntask: [norm, acc]\naggregate_metric_list: {lists}\n"
    (include / "both.yaml").write_text(text)
    found = ask(local, include, tmp_path / "run", "both")
    asked = {"task_manager": TaskManager(include_path=str(include), include_defaults=False)}
    asked |= {"tasks": ["both"], "bootstrap_iters": 0}
    expected = lm_eval.simple_evaluate(adapter(local), **asked)["results"]["both"]
    rows = {(row["task"], row["metric"]): row for row in found["scores"]}
    assert rows["both", "acc_norm"]["value"] == pytest.approx(expected["acc_norm,none"])
    assert rows["both", "acc_norm"]["value"] != rows["acc", "acc_norm"]["value"]
    assert rows["both", "acc_norm"]["items"] == rows["norm", "acc_norm"]["items"]
    (row,) = found["failed"]
    assert row == {
        "task": "both",
        "status": "failed",
        "reason": "no brier_score of the group: none of its tasks has it",
    }


# tasks of one, four and three items; the inner group weighs them evenly, the outer by size
GROUP = """
group: outer
task:
  - last
  - group: inner
    task: [first, killer, {task: broken, num_fewshot: 1}]
    aggregate_metric_list: [{metric: acc, weight_by_size: false}]
  - task: alone
    custom_dataset: !function rows.load
    dataset_kwargs: {task: last}
    test_split: test
    output_type: multiple_choice
    doc_to_text: question
    doc_to_choice: choices
    doc_to_target: label
aggregate_metric_list: [{metric: acc, weight_by_size: true}, {metric: acc_norm}]
metadata: {version: 7}
"""


@pytest.fixture
def group(include):
    """Tasks of different lengths in groups within groups."""
    (include / "outer.yaml").write_text(GROUP)
    rows = (include / "rows.py").read_text()
    items = "[row] * {'first': 1, 'killer': 4}.get(task, 2) + [{**row, 'label': 1}]"
    (include / "rows.py").write_text(rows.replace('[row, {**row, "label": 1}, row]', items))
    return include


def test_a_group_has_lm_evals_own_score(local, group, tmp_path):
    (group / "killed").touch()
    found = ask(local, group, tmp_path / "run", "outer")
    manager = TaskManager(include_path=str(group), include_defaults=False)
    asked = {"tasks": ["outer"], "task_manager": manager, "bootstrap_iters": 0}
    expected = lm_eval.simple_evaluate(adapter(local), **asked)
    own = json.loads((tmp_path / "run" / "lm_eval.json").read_text())
    assert found["failed"] == []
    assert set(own["results"]) == set(expected["results"]) == {
        "first", "killer", "last", "broken", "outer::alone", "outer", "outer::inner",
    }  # fmt: skip
    for name, metrics in expected["results"].items():
        assert own["results"][name] == metrics
    for part in ("versions", "n-shot"):
        assert {**expected[part], **own[part]} == own[part]
    rows = {(row["task"], row["metric"]): row for row in found["scores"]}
    row = rows["outer", "acc"]
    leaves = [rows[name, "acc"] for name in ("first", "killer", "last", "broken", "outer::alone")]
    assert row["items"] == sum(leaf["items"] for leaf in leaves) == 2 + 5 + 3 + 3 + 3
    assert row["value"] == pytest.approx(expected["results"]["outer"]["acc,none"])
    assert (row["version"], row["chance"], row["higher_is_better"]) == ("7", 0.5, True)
    inner = [rows[name, "acc"]["value"] for name in ("first", "killer", "broken")]
    assert rows["outer::inner", "acc"]["value"] == pytest.approx(sum(inner) / 3)
    assert rows["outer::inner", "acc"]["standard_error"] > 0


def test_a_task_that_breaks_costs_its_group_the_score_and_no_other_task(local, group, tmp_path):
    for name in ("killed", "broken"):
        (group / name).touch()
    found = ask(local, group, tmp_path / "run", "outer", "glutton")
    failed = {row["task"]: row for row in found["failed"]}
    assert set(failed) == {"broken", "outer", "outer::inner", "glutton"}
    assert "a broken row" in failed["broken"]["reason"]
    assert "lacks 1 of 5 tasks (broken)" in failed["outer"]["reason"]
    assert {failed[name]["status"] for name in failed if name != "glutton"} == {"failed"}
    scored = {row["task"] for row in found["scores"]}
    assert scored == {"first", "killer", "last", "outer::alone"}
    assert failed["glutton"]["status"] == "out-of-memory"
    assert "MemoryError" in failed["glutton"]["reason"]


def test_a_killed_group_goes_on_with_the_tasks_that_are_left(local, group, tmp_path):
    spec, folder = spec_of("outer"), tmp_path / "run"
    command = [sys.executable, "-m", "llama_bench", "evaluate", spec.canonical()]
    command += [str(folder / "record.json"), str(local), str(group)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    again = ask(local, group, folder, "outer")
    read = (group / "read.txt").read_text().split()
    assert [name for name in read if name in ("first", "killer", "broken")] == [
        "first", "killer", "killer", "broken",
    ]  # fmt: skip
    whole = ask(local, group, tmp_path / "whole", "outer")
    assert again["scores"] == whole["scores"]
    tables = [pq.read_table(at / "items.parquet") for at in (folder, tmp_path / "whole")]
    assert tables[0].equals(tables[1])


def test_a_task_that_two_names_ask_alike_is_answered_once(local, group, tmp_path):
    (group / "killed").touch()
    found = ask(local, group, tmp_path / "run", "last", "outer", "broken")
    assert (group / "read.txt").read_text().split().count("last") == 2  # one is outer::alone
    (failed,) = found["failed"]  # with one example in its group, with none by itself
    assert failed["task"] == "broken" and "other settings" in failed["reason"]


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
