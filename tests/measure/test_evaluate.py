"""Evaluation, whole: scores beside their chance, and what happens when something is wrong."""

import json
import math
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from sacrebleu import corpus_chrf
from tiny_llama import CONTEXT, SHAPE, checkpoint
from transformers import AutoModelForCausalLM

from llama_bench import records
from llama_bench.measure import evaluate, model, tasks
from llama_bench.measure.questions import task_files
from llama_bench.records import Record, Refusal
from llama_bench.sections.evaluate import HELD_OUT_TASKS
from llama_bench.specs import EvaluateSpec, Pretrained, TasksSpec


def written(name):
    """The function as it lies beside the tasks, of one reference and one answer."""
    space = {"__file__": "held_out.py"}
    exec(task_files.FUNCTIONS, space)
    return lambda reference, answer: space[name]([reference], [answer])


FUNCTIONS = {"exact_match": lambda gold, text: gold == text, "token_f1": written("token_f1")}


class Silent:
    def __call__(self, done, of, note=""):
        assert 0 <= done <= of

    def say(self, text):
        pass


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", prepared)


def record(path, verb, result=None):
    found = Record(
        id=path.parent.name, verb=verb, spec={}, seconds={}, provenance={}, result=result or {}
    )
    found.write(path)
    return path


@pytest.fixture(scope="module")
def suite(prepared, tmp_path_factory):
    """A tasks run on the small corpus."""
    folder = tmp_path_factory.mktemp("suite")
    spec = TasksSpec(data=prepared.parent.name, items=30)
    return record(folder / "record.json", "tasks", tasks.run(spec, folder, [prepared], Silent()))


def spec_of(**given):
    return EvaluateSpec(**{"train": "tiny-12345678", "tasks": HELD_OUT_TASKS} | given)


@pytest.fixture(scope="module")
def evaluated(local, suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    spec = spec_of(held_out="suite", prompts=("import ",), prompt_tokens=8)
    result = evaluate.run(spec, folder, [local.parent / "record.json", suite], Silent())
    return folder, result


def test_every_task_is_scored_beside_its_chance(evaluated, suite):
    _, result = evaluated
    about = records.read(suite).result["tasks"]
    assert result["failed"] == [] and len(about) >= 7
    rows = {(row["task"], row["metric"]): row for row in result["scores"]}
    assert {task for task, _ in rows} == set(about)
    for name, task in about.items():
        row = rows[name, task["metric"]]
        assert row["chance"] == task["chance"] and row["items"] == task["items"]
        assert row["higher_is_better"] is task["higher_is_better"]
        assert row["unscored"] == row["truncated"] == row["shots"] == 0
        assert row["respelled"] == row["lossy"] == 0
        assert row["version"] == "2" and row["filter"] == "none"
    assert all(row["standard_error"] is not None for row in result["scores"])
    assert ("heldout_next_line", "acc_norm") in rows
    assert rows["heldout_bits_per_byte", "bits_per_byte"]["value"] > 1


def of_items(metric, items):
    """A score from items.parquet alone: no model, no lm-eval."""
    docs = {}
    for item in items:
        docs.setdefault(item["doc_id"], []).append(item)
    first = [rows[0] for rows in docs.values()]
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    if metric == "bits_per_byte":
        nats = -sum(item["log_likelihood"] for item in first)
        return nats / math.log(2) / sum(item["bytes"] for item in first)
    if metric in ("exact_match", "token_f1"):
        return mean([float(FUNCTIONS[metric](i["target"], i["text"])) for i in first])
    if metric == "chrf":
        return corpus_chrf([i["text"] for i in first], [[i["target"] for i in first]]).score
    if items[0]["gold"] is None:
        return mean([item["is_greedy"] for item in first])
    size = {"acc_norm": "characters"}.get(metric)
    right, gold = [], [next(r for r in rows if r["gold"]) for rows in docs.values()]
    for rows in docs.values():
        best = max(rows, key=lambda r: r["log_likelihood"] / (r[size] if size else 1))
        right.append(best["gold"])
    if metric in ("acc", "acc_norm"):
        return mean(right)
    if metric == "gold_bits_per_byte":
        return mean([-r["log_likelihood"] / math.log(2) / r["bytes"] for r in gold])
    totals = [[r["log_likelihood"] for r in rows] for rows in docs.values()]
    shares = [[1 / sum(math.exp(other - one) for other in each) for one in each] for each in totals]
    if metric == "gold_probability":
        return mean([s[r["choice"]] for s, r in zip(shares, gold, strict=True)])
    if metric == "brier":
        return mean(
            [
                sum((p - (n == r["choice"])) ** 2 for n, p in enumerate(s))
                for s, r in zip(shares, gold, strict=True)
            ]
        )
    assert metric == "gold_margin"
    wrong = [[r["log_likelihood"] for r in rows if not r["gold"]] for rows in docs.values()]
    return mean([r["log_likelihood"] - max(w) for r, w in zip(gold, wrong, strict=True)])


def test_scores_follow_from_the_items_alone(evaluated):
    folder, result = evaluated
    items = pq.read_table(folder / "items.parquet").to_pylist()
    seen = set()
    for row in result["scores"]:
        if row["metric"] in ("ece", "macro_precision", "macro_recall", "macro_f1"):
            continue  # by hand in test_choices.py
        mine = [i for i in items if i["task"] == row["task"]]
        assert len({i["doc_id"] for i in mine}) == row["items"]
        assert row["value"] == pytest.approx(of_items(row["metric"], mine), rel=1e-9), row
        seen.add(row["metric"])
    assert {"chrf", "token_f1", "exact_match", "acc_norm", "brier", "gold_bits_per_byte"} <= seen


def test_every_prompt_is_kept(evaluated, suite):
    folder, _ = evaluated
    items = pq.read_table(folder / "items.parquet").to_pylist()
    for task in ("heldout_next_line", "heldout_line_end"):
        asked = [json.loads(row) for row in (suite.parent / f"tasks/{task}.jsonl").open()]
        mine = {i["doc_id"]: i for i in items if i["task"] == task and i["choice"] == 0}
        assert [mine[n]["prompt"] for n in range(30)] == [row["context"] for row in asked]
    assert {i["construction"] for i in items if i["task"] == "heldout_line_end"} >= {"usual"}


def test_scores_by_construction_add_up(evaluated):
    _, result = evaluated
    whole = {(row["task"], row["metric"]): row for row in result["scores"]}
    parts = {}
    for row in result["constructions"]:
        parts.setdefault((row["task"], row["metric"]), []).append(row)
    assert len(parts["heldout_valid_code", "acc"]) >= 3
    for key in (("heldout_valid_code", "acc"), ("heldout_valid_code", "gold_probability")):
        assert sum(row["items"] for row in parts[key]) == whole[key]["items"]
        mean = sum(row["items"] * row["value"] for row in parts[key]) / whole[key]["items"]
        assert mean == pytest.approx(whole[key]["value"])


def test_answers_count_every_item_once(evaluated):
    _, result = evaluated
    for task in {row["task"] for row in result["answers"]}:
        mine = [row for row in result["answers"] if row["task"] == task]
        right = sum(row["items"] for row in mine if row["gold"] == row["given"])
        acc = next(r for r in result["scores"] if (r["task"], r["metric"]) == (task, "acc"))
        assert sum(row["items"] for row in mine) == acc["items"]
        assert right / acc["items"] == pytest.approx(acc["value"])


def test_lm_evals_own_result_lies_beside(evaluated):
    folder, result = evaluated
    own = json.loads((folder / "lm_eval.json").read_text())
    assert "samples" not in own
    rows = {(r["task"], f"{r['metric']},{r['filter']}"): r["value"] for r in result["scores"]}
    given = {
        (task, key): value
        for task, metrics in own["results"].items()
        for key, value in metrics.items()
        if "," in key and "_stderr" not in key
    }
    assert len(given) > 10
    for key, value in given.items():
        assert rows[key] == value


def test_the_model_says_what_was_loaded(evaluated, local):
    _, result = evaluated
    assert result["parameters"] == SHAPE.parameters(512)
    assert result["model"] == {
        "path": str(local), "repo": None, "commit": None, "dtype": "float32", "context": CONTEXT,
        "bos": "once", "quantization": None, "engine": "transformers", "devices": 1,
    }  # fmt: skip
    assert [row["prompt"] for row in result["samples"]] == ["import", "import"]


def test_tasks_that_the_corpus_does_not_allow_are_not_asked(local, tmp_path):
    """Why they are left out stands in the tasks' own record, once, and not with every model."""
    folder = tmp_path / "suite"
    result = {"tasks": {}, "left_out": {"heldout_valid_code": "no Python in the corpus"}}
    suite = record(folder / "record.json", "tasks", result)
    (folder / "tasks").mkdir()
    spec = spec_of(tasks=("heldout_valid_code",), held_out="suite")
    found = evaluate.run(spec, tmp_path, [local.parent / "record.json", suite], Silent())
    assert found["failed"] == found["scores"] == []


COLOURS = """
task: {name}
custom_dataset: !function rows.load
test_split: test
output_type: multiple_choice
doc_to_text: {text}
doc_to_choice: choices
doc_to_target: label
target_delimiter: ""
"""
ROWS = """
import datasets
def load(**_):
    row = {"question": "the sky is", "choices": [" blue", " red", " sour"], "label": 0}
    odd = {"question": "grass is", "choices": ["", "", ""], "label": 0}
    return {"test": datasets.Dataset.from_list([row, odd, row])}
"""


@pytest.fixture
def include(tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "rows.py").write_text(ROWS)
    (folder / "colours.yaml").write_text(COLOURS.format(name="colours", text="question"))
    (folder / "broken.yaml").write_text(COLOURS.format(name="broken", text='"{{ 1 / 0 }}"'))
    return folder


def test_a_task_that_fails_loses_no_other(local, include, tmp_path):
    spec = spec_of(tasks=("broken", "colours"), include="digest")
    found = evaluate.run(spec, tmp_path, [local.parent / "record.json", include], Silent())
    assert [row["task"] for row in found["failed"]] == ["broken"]
    assert "ZeroDivisionError" in found["failed"][0]["reason"]
    row = next(row for row in found["scores"] if row["metric"] == "acc")
    assert row["task"] == "colours" and row["items"] == 3
    assert row["chance"] == pytest.approx(1 / 3)  # not said by the task: one of its choices
    assert row["unscored"] == 3
    items = pq.read_table(tmp_path / "items.parquet").to_pylist()
    empty = [item for item in items if item["text"] == ""]
    assert [item["log_likelihood"] for item in empty] == [None] * 3
    (wrong,) = (item["statistics"] for item in empty if item["statistics"])
    assert wrong[0] == {"metric": "acc", "sums": [0.0, 1.0]}
    right = [item["statistics"][0]["sums"][0] for item in items if item["choice"] == 0]
    assert row["value"] == sum(right) / 3 in (0.0, 2 / 3)  # lm-eval would call the empty one right


OFFLINE = """
task: offline
dataset_path: nobody/nothing-of-this-name
test_split: test
output_type: loglikelihood
doc_to_text: a
doc_to_target: b
"""


def test_data_from_the_hub_is_named_where_there_is_none(local, include, tmp_path):
    """HF_HUB_OFFLINE is set in all tests: the task is named, and the others keep their scores."""
    (include / "offline.yaml").write_text(OFFLINE)
    spec = spec_of(tasks=("offline", "colours"), include="digest")
    found = evaluate.run(spec, tmp_path, [local.parent / "record.json", include], Silent())
    (failed,) = found["failed"]
    assert failed["task"] == "offline" and "nobody/nothing-of-this-name" in failed["reason"]
    assert "HF_HUB_OFFLINE" in failed["reason"]
    assert {row["task"] for row in found["scores"]} == {"colours"}


def test_limit_and_shots_are_kept_to(local, include, tmp_path):
    spec = spec_of(tasks=("colours",), include="digest", limit=2, shots=1)
    found = evaluate.run(spec, tmp_path, [local.parent / "record.json", include], Silent())
    acc = next(row for row in found["scores"] if row["metric"] == "acc")
    assert (acc["items"], acc["shots"]) == (2, 1)


def damaged(local, folder, change):
    shutil.copytree(local, folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        change(loaded)
    model.save(loaded, folder)
    return folder


def refusal(folder, suite, tmp_path, task="heldout_next_line"):
    spec = EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=(task,), held_out="suite")
    with pytest.raises(Refusal) as caught:
        evaluate.run(spec, tmp_path, [folder, suite], Silent())
    assert "\n" not in caught.value.reason
    return caught.value


def test_a_model_of_nan_has_no_score(local, suite, tmp_path):
    folder = damaged(local, tmp_path / "nan", lambda m: m.lm_head.weight[3].fill_(math.nan))
    assert refusal(folder, suite, tmp_path).status == "non-finite"


@pytest.mark.parametrize("task", ["heldout_next_line", "heldout_line_end"])
def test_finite_weights_that_give_nan_have_no_score(local, suite, tmp_path, task):
    """Where choices are scored, and where text is written."""
    folder = damaged(local, tmp_path / "big", lambda m: m.model.norm.weight.fill_(3e38))
    found = refusal(folder, suite, tmp_path, task)
    assert found.status == "non-finite" and "not finite" in found.reason


def test_a_model_that_cannot_be_loaded_is_refused(local, suite, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(local, bare)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    found = refusal(bare, suite, tmp_path)
    assert found.status == "refused" and "no tokenizer" in found.reason

    empty = tmp_path / "empty"
    shutil.copytree(local, empty, ignore=shutil.ignore_patterns("*.safetensors"))
    assert "safetensors" in refusal(empty, suite, tmp_path).reason

    strange = tmp_path / "strange"
    shutil.copytree(local, strange)
    config = json.loads((strange / "config.json").read_text()) | {"model_type": "walrus"}
    (strange / "config.json").write_text(json.dumps(config))
    assert "walrus" in refusal(strange, suite, tmp_path).reason


def test_a_tokenizer_larger_than_its_model_is_refused(local, suite, tmp_path):
    folder = tmp_path / "small"
    shutil.copytree(local, folder)
    model.save(model.build(SHAPE, 300, CONTEXT, 0), folder)
    assert "512 ids, the model 300" in refusal(folder, suite, tmp_path).reason


STORIES = """
task: stories
custom_dataset: !function rows.load
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""


def test_the_larger_real_llama_reads_stories_better(shared, tmp_path):
    lines = shared("eval", "tinystories_ppl", "stories500.jsonl").read_text().splitlines()
    folder = tmp_path / "stories"
    folder.mkdir()
    (folder / "stories.yaml").write_text(STORIES)
    (folder / "stories.json").write_text(f"[{','.join(lines[:12])}]")
    (folder / "rows.py").write_text(
        "import datasets, json, pathlib\n"
        "def load(**_):\n"
        "    text = pathlib.Path(__file__).with_name('stories.json').read_text()\n"
        "    return {'test': datasets.Dataset.from_list(json.loads(text))}\n"
    )
    values = {}
    for name in ("stories260K", "stories3M"):
        spec = EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=("stories",), include="digest")
        out = tmp_path / name
        out.mkdir()
        found = evaluate.run(spec, out, [shared("models", name), folder], Silent())
        (row,) = found["scores"]
        assert row["items"] == 12 and 0 < row["standard_error"] < 0.1
        values[name] = row["value"]
    assert 0.3 < values["stories3M"] < values["stories260K"] - 0.05 < 1.0
