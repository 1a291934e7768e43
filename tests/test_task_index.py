"""Task names and versions are known before any job starts."""

import json
import subprocess
import sys
from importlib import metadata

import pytest

from llama_bench import task_index


def write(folder, name, text):
    (folder / name).write_text(text)


def test_versions_stand_in_the_task_files(tmp_path):
    write(tmp_path, "one.yaml", "task: one\ntag: [small]\nmetadata:\n  version: 2.1\n")
    write(tmp_path, "two.yaml", "task: 'two'\nmetadata: {version: \"3\", chance: 0.5}\n")
    write(tmp_path, "none.yaml", "task: none\noutput_type: multiple_choice\n")
    write(tmp_path, "both.yaml", "group: both\ntask: [one, two]\nmetadata: {version: 7}\n")
    listed = {"one": "2.1", "two": "3", "none": None, "both": "7", "small": None}
    assert task_index.in_folder(tmp_path) == listed


def test_tags_may_be_written_in_any_way_that_yaml_has(tmp_path):
    write(tmp_path, "one.yaml", "task: one\ntag:\n  - small\n  - 'of code'\n")
    write(tmp_path, "two.yaml", "{task: two, tag: alone, process_docs: !function own.docs}\n")
    write(tmp_path, "both.yaml", "group: both\ntag: none_of_a_group\ntask: [one, two]\n")
    names = {"one", "two", "both", "small", "of code", "alone"}
    assert set(task_index.in_folder(tmp_path)) == names


def test_a_file_that_lm_eval_would_pass_over_in_silence_is_named(tmp_path):
    write(tmp_path, "one.yaml", "task: one\ninclude: round.yaml\n")
    for text, said in (
        ("task: [one\n", r"round.yaml is no YAML: .*line 2"),
        ("include: gone.yaml\n", r"round.yaml includes .*gone.yaml, which is not there"),
        ("include: one.yaml\n", r"includes itself"),
    ):
        write(tmp_path, "round.yaml", text)
        with pytest.raises(ValueError, match=said):
            task_index.in_folder(tmp_path)
    write(tmp_path, "round.yaml", "- no task\n")
    assert task_index.in_folder(tmp_path) == {"one": None}


def test_a_version_may_stand_in_what_a_file_includes(tmp_path):
    write(tmp_path, "_rules", "output_type: multiple_choice\nmetadata:\n  version: 4\n")
    write(tmp_path, "first.yaml", "include: _rules\ntask: first\n")
    write(tmp_path, "second.yaml", "include: _rules\ntask: second\nmetadata: {version: 5}\n")
    write(tmp_path, "third.yaml", "include: [_rules]\ntask: third\nmetadata: {chance: 0.5}\n")
    found = task_index.in_folder(tmp_path)
    assert found == {"first": "4", "second": "5", "third": None}


def test_lm_eval_says_the_same_of_a_folder(tmp_path):
    write(tmp_path, "_rules", "output_type: multiple_choice\nmetadata:\n  version: 4\n")
    write(tmp_path, "first.yaml", "include: _rules\ntask: first\ntag: [few, '3']\n")
    write(tmp_path, "second.yaml", "include: _rules\ntask: second\nmetadata: {version: 1.0}\n")
    write(tmp_path, "third.yaml", "include: [_rules]\ntask: third\nmetadata: {chance: 0.5}\n")
    write(tmp_path, "all.yaml", "group: all\ntask: [few, second]\nmetadata: {version: 2}\n")
    write(tmp_path, "passed-over.yml", "task: other\n")
    code = (
        "import json, sys; from lm_eval.tasks import TaskManager; "
        "index = TaskManager(include_path=sys.argv[1], include_defaults=False).task_index; "
        "found = {n: (e.cfg or {}).get('metadata', {}).get('version') for n, e in index.items()}; "
        "print(json.dumps({n: None if v is None else str(v) for n, v in found.items()}))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(said.splitlines()[-1]) == task_index.in_folder(tmp_path)


def test_a_pin_that_does_not_hold_is_named():
    known = {"one": "2.0", "none": None}
    assert task_index.changed({"one": 2}, known) is None
    assert task_index.changed({"one": "2.0"}, known) is None
    said = task_index.changed({"one": 2.1}, known)
    assert "one" in said and "version 2.0" in said and "pins 2.1" in said
    assert "no version" in task_index.changed({"none": 1}, known)
    assert "no task" in task_index.changed({"other": 1}, known)


def test_the_list_of_lm_eval_is_asked_once(tmp_path, monkeypatch):
    keep(tmp_path, monkeypatch, {"arc_easy": {"version": "1.0"}, "ai2_arc": {"version": None}})
    assert task_index.of_lm_eval() == {"arc_easy": "1.0", "ai2_arc": None}
    monkeypatch.setattr(metadata, "version", _not_installed)
    with pytest.raises(ValueError, match="lm-eval is not installed"):
        task_index.of_lm_eval()


def keep(folder, monkeypatch, index):
    """As if lm-eval had been asked before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    path = folder / "cache/llama_bench" / f"lm-eval-{metadata.version('lm-eval')}-tasks.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(index))


def test_lm_evals_own_tasks_stand_beside_those_of_a_folder_and_few_files_are_read(
    tmp_path, monkeypatch
):
    from llama_bench.measure.evaluation import known_tasks

    own = tmp_path / "own"
    own.mkdir()
    write(own, "mine.yaml", "group: mine\ntask: [arc_easy, boolq]\n")
    write(own, "boolq.yaml", "task: boolq\n")
    entry = {"version": "1.0", "kind": "TASK", "path": "arc/arc_easy.yaml", "tags": ["ai2_arc"]}
    other = {**entry, "path": "super_glue/boolq/default.yaml", "tags": []}
    tag = {"version": None, "kind": "TAG", "path": None, "tags": ["arc_easy"]}
    keep(tmp_path, monkeypatch, {"arc_easy": entry, "ai2_arc": tag, "boolq": other})
    known = known_tasks.manager(["mine"], [own]).task_index
    assert known["arc_easy"].kind.name == "TASK" and known["ai2_arc"].tags == {"arc_easy"}
    assert "task: arc_easy" in known["arc_easy"].yaml_path.read_text()
    assert known["boolq"].yaml_path == own / "boolq.yaml", "its own goes before lm-eval's"
    (own / "mine.yaml").unlink()
    assert set(known_tasks.manager(["boolq"], [own]).task_index) == {"boolq"}, "none is needed"


def _not_installed(name):
    raise metadata.PackageNotFoundError(name)
