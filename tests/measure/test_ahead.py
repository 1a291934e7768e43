"""One process for all suites of a model: what it finished ahead of their jobs is theirs, once."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from tiny_llama import checkpoint

from llama_bench import records
from llama_bench.measure.evaluation import loading
from llama_bench.measure.job import AHEAD, AHEAD_LOCK, LOCK, carry_out
from llama_bench.specs import EvaluateSpec, Pretrained

TASK = """
task: {name}
custom_dataset: !function rows.load
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: label
"""
ROWS = """
import datasets, pathlib

def load(**_):
    if (pathlib.Path(__file__).parent / "stop").exists():
        raise KeyboardInterrupt
    rows = [{"question": f"def {n}(", "choices": ["self", "import"], "label": 0} for n in "abcdef"]
    return {"test": datasets.Dataset.from_list(rows)}
"""


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", prepared)


@pytest.fixture
def suites(local, tmp_path):
    """Two suites of one model, and one of another: (SPEC, OUTPUT, INPUTS) of each."""
    asked = []
    for name, digest in (("one", "0"), ("two", "0"), ("third", "1")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.yaml").write_text(TASK.format(name=name))
        (folder / "rows.py").write_text(ROWS)
        spec = EvaluateSpec(pretrained=Pretrained(digest=digest), tasks=(name,), include=name)
        asked.append((spec.canonical(), tmp_path / "runs" / name / "record.json", [local, folder]))
    return asked


def words(asked) -> list[str]:
    spec, output, inputs = asked
    return [spec, str(output), *map(str, inputs)]


def started(*asked) -> subprocess.Popen:
    command = [sys.executable, "-m", "llama_bench", "evaluate", *words(asked[0])]
    for other in asked[1:]:
        command += ["--then", *words(other)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def told(path) -> dict:
    """What a record says of the model, not of the moment."""
    found = records.read(path)
    return {"spec": found.spec, "status": found.status, "result": found.result}


def test_a_model_is_loaded_once_and_answers_as_if_asked_alone(suites, tmp_path, monkeypatch):
    loads = []
    load = loading.load
    monkeypatch.setattr(loading, "load", lambda *given: loads.append(given) or load(*given))
    carry_out("evaluate", *suites[0], suites[1:])
    assert [spec.tasks for spec, _ in loads] == [("one",), ("third",)]
    for spec, output, inputs in suites:
        kept = output if output is suites[0][1] else output.with_name(AHEAD)
        assert [path.exists() for path in (output, output.with_name(AHEAD))].count(True) == 1
        alone = tmp_path / "alone" / output.parent.name / "record.json"
        carry_out("evaluate", spec, alone, inputs)
        assert told(kept) == told(alone)
        mine, theirs = (pq.read_table(path.parent / "items.parquet") for path in (kept, alone))
        assert len(mine) == 12 and mine.equals(theirs)
    assert len(loads) == 5


def test_a_suite_that_was_asked_ahead_is_not_asked_again(suites):
    first = started(*suites[:2])
    assert "evaluate" in first.communicate()[1] and first.returncode == 0
    output = suites[1][1]
    ahead = output.with_name(AHEAD).read_bytes()
    assert json.loads(ahead)["provenance"]["command"].count("--then") == 1
    (suites[1][2][1] / "stop").touch()  # whoever reads the rows again, fails
    job = started(suites[1])
    assert job.communicate() and job.returncode == 0
    assert output.read_bytes() == ahead and not output.with_name(AHEAD).exists()


def test_what_goes_wrong_ahead_costs_no_finished_record(suites):
    (suites[1][2][1] / "stop").touch()
    with pytest.raises(KeyboardInterrupt):
        carry_out("evaluate", *suites[0], suites[1:2])
    output = suites[0][1]
    assert output.with_name(AHEAD).exists() and not output.exists()
    before = output.with_name(AHEAD).read_bytes()
    carry_out("evaluate", *suites[0], suites[1:2])
    assert output.read_bytes() == before
    assert not suites[1][1].with_name(AHEAD).exists()


def test_an_accident_ahead_is_told_by_its_log(suites):
    spec, output, (_, folder) = suites[2]
    broken = folder / "record.json"
    broken.write_text("{")
    job = started(suites[0], (spec, output, [broken, folder]))
    assert job.communicate() and job.returncode == 0
    assert records.read(suites[0][1]).status == "ok"
    assert not list(output.parent.glob("*.json"))
    assert str(broken) in (output.parent / "log.txt").read_text().splitlines()[-1]


def test_suites_that_cannot_start_yet_or_have_begun_are_left_to_their_jobs(suites, tmp_path):
    spec, output, inputs = suites[2]
    later = (spec, output, [tmp_path / "to come" / "record.json", *inputs[1:]])
    begun = suites[1][1].parent
    begun.mkdir(parents=True)
    with open(begun / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        carry_out("evaluate", *suites[0], [suites[1], later])
    assert suites[0][1].exists()
    assert not output.parent.exists() and not (begun / AHEAD).exists()


def test_a_job_waits_for_who_is_at_its_suite_already(suites):
    carry_out("evaluate", *suites[0], suites[1:2])
    output = suites[1][1]
    ahead = output.with_name(AHEAD)
    done = ahead.read_bytes()
    ahead.unlink()
    with open(output.with_name(AHEAD_LOCK), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        job = started(suites[1])
        assert "waits for the process" in job.stderr.readline()
        ahead.write_bytes(done)
    assert job.communicate() and job.returncode == 0
    assert output.read_bytes() == done


def test_a_suite_without_an_output_is_a_mistake(tmp_path):
    command = [sys.executable, "-m", "llama_bench", "evaluate", "{}", "x", "--then", "{}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "needs SPEC and OUTPUT" in ended.stderr
