"""What a task's rows say, of tasks that are not as plain as most: several right answers, a verdict
of the task's own, items that cannot be scored, examples before the question."""

import json
import math

import lm_eval
import pyarrow.parquet as pq
import pytest
from lm_eval.tasks import TaskManager
from tiny_llama import adapter, checkpoint

from llama_bench.measure import evaluate
from llama_bench.specs import EvaluateSpec, Pretrained

ROWS = """
import datasets

def load(rows, **_):
    return {"test": datasets.Dataset.from_list(rows)}

def judged(doc, results):
    return {"acc": float(results[0][0] > results[1][0])}
"""
HEAD = "task: {}\ncustom_dataset: !function rows.load\ntest_split: test\n"
CHOICE = """
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: label
"""
WORD = """
output_type: loglikelihood
doc_to_text: question
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list: [{metric: perplexity, aggregation: perplexity}, {metric: acc}]
"""
COLOURS = [" blue", " red", " green", " grey"]


def words(*answers: str) -> list[dict]:
    return [{"question": f"the {place} is", "answer": text} for place, text in enumerate(answers)]


def questions(label) -> list[dict]:
    asked = [{"question": f"the {name} is", "choices": COLOURS} for name in ("sea", "sky", "sun")]
    return [{**row, "label": label(place)} for place, row in enumerate(asked)]


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", prepared)


@pytest.fixture
def folder(tmp_path):
    at = tmp_path / "tasks"
    at.mkdir()
    (at / "rows.py").write_text(ROWS)
    return at


def write(folder, name: str, rows: list[dict], body: str) -> None:
    head = HEAD.format(name) + f"dataset_kwargs: {{rows: {json.dumps(rows)}}}\n"
    (folder / f"{name}.yaml").write_text(head + body)


def group(folder, name: str, *members: str) -> None:
    metrics = "[{metric: perplexity}, {metric: acc}]"
    text = f"group: {name}\ntask: [{', '.join(members)}]\naggregate_metric_list: {metrics}\n"
    (folder / f"{name}.yaml").write_text(text)


def ask(local, folder, *names, **given):
    out = folder.parent / "run"
    out.mkdir(exist_ok=True)
    spec = EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=names, include="d", **given)
    found = evaluate.run(spec, out, [local, folder], lambda *a: None)
    rows = {(row["task"], row["metric"]): row for row in found["scores"]}
    return found, rows, pq.read_table(out / "items.parquet").to_pylist()


def test_an_item_that_cannot_be_scored_costs_no_perplexity(local, folder):
    write(folder, "whole", words(" blue", " red", " green"), WORD)
    write(folder, "part", words(" blue", "", " green"), WORD)
    group(folder, "both", "whole", "part")
    found, rows, items = ask(local, folder, "both")
    assert found["failed"] == []
    known = [i["log_likelihood"] for i in items if i["task"] == "part" and i["log_likelihood"]]
    row = rows["part", "perplexity"]
    assert (row["items"], row["unscored"]) == (2, 1) and row["standard_error"] > 0
    assert row["value"] == pytest.approx(math.exp(-sum(known) / 2))
    assert rows["part", "acc"]["items"] == 3
    values = [rows[name, "perplexity"]["value"] for name in ("whole", "part")]
    assert rows["both", "perplexity"]["value"] == pytest.approx(sum(values) / 2)


def test_a_group_has_no_mean_of_some_of_its_tasks_alone(local, folder):
    write(folder, "whole", words(" blue", " red", " green"), WORD)
    write(folder, "none", words("", ""), WORD)
    group(folder, "both", "whole", "none")
    found, rows, _ = ask(local, folder, "both")
    row = rows["none", "perplexity"]
    assert (row["value"], row["items"], row["unscored"]) == (None, 0, 2)
    assert ("both", "perplexity") not in rows and rows["both", "acc"]["items"] == 5
    assert [row["task"] for row in found["failed"]] == ["both"]
    assert found["failed"][0]["reason"].endswith(
        "perplexity of the group, for there is none of none"
    )
    own = json.loads((folder.parent / "run" / "lm_eval.json").read_text())
    assert own["results"]["both"]["perplexity,none"] is None


def test_chance_of_several_right_answers_is_their_share(local, folder):
    write(folder, "two", questions(lambda place: [place, place + 1]), CHOICE)
    _, rows, _ = ask(local, folder, "two")
    chances = {rows["two", name]["chance"] for name in ("acc", "acc_norm", "gold_probability")}
    assert chances == {0.5}


def test_a_task_that_judges_the_answers_itself_says_not_which_is_right(local, folder):
    write(
        folder,
        "judged",
        questions(lambda _: 0),
        CHOICE + "process_results: !function rows.judged\n",
    )
    found, rows, items = ask(local, folder, "judged")
    assert list(rows) == [("judged", "acc")] and rows["judged", "acc"]["chance"] is None
    assert found["answers"] == [] and {item["gold"] for item in items} == {None}


def test_the_first_metric_of_a_task_is_known(local, folder):
    metrics = "metric_list: [{metric: acc_norm}, {metric: acc}]\n"
    write(folder, "two", questions(lambda place: place), CHOICE + metrics)
    write(folder, "word", words(" blue", " red"), WORD)
    group(folder, "one", "word")
    found, _, _ = ask(local, folder, "two", "one")
    first = {row["task"]: row["metric"] for row in found["scores"] if row["first"]}
    assert first == {"two": "acc_norm", "word": "perplexity", "one": "perplexity"}


def test_examples_are_drawn_by_the_seed_as_lm_eval_draws_them(local, folder):
    rows = [{"question": f"{place} is", "choices": COLOURS, "label": 0} for place in range(9)]
    write(folder, "shots", rows, CHOICE + "num_fewshot: 3\nfewshot_split: test\n")
    manager, prompts = TaskManager(include_path=str(folder), include_defaults=False), []
    for seed in (0, 1234):  # what a study has if it says nothing, and what the command has
        asked = {"task_manager": manager, "bootstrap_iters": 0, "fewshot_random_seed": seed}
        theirs = lm_eval.simple_evaluate(adapter(local), tasks=["shots"], **asked)
        samples = {sample["doc_id"]: sample for sample in theirs["samples"]["shots"]}
        _, _, items = ask(local, folder, "shots", bos="stock", seed=seed)
        prompts.append({item["doc_id"]: item["prompt"] for item in items})
        for key, prompt in prompts[-1].items():
            assert prompt == samples[key]["arguments"][0][0]
    assert prompts[0] != prompts[1]
