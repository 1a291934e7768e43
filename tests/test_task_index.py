"""Task names and versions are known before any job starts."""

import json
import subprocess
import sys

import pytest

from llama_bench import task_index


def write(folder, name, text):
    (folder / name).write_text(text)


def test_versions_stand_in_the_task_files(tmp_path):
    write(tmp_path, "one.yaml", "task: one\ntag: [small]\nmetadata:\n  version: 2.1\n")
    write(tmp_path, "two.yml", "task: 'two'\nmetadata: {version: \"3\", chance: 0.5}\n")
    write(tmp_path, "none.yaml", "task: none\noutput_type: multiple_choice\n")
    write(tmp_path, "both.yaml", "group: both\ntask: [one, two]\nmetadata: {version: 7}\n")
    assert task_index.in_folder(tmp_path) == {"one": "2.1", "two": "3", "none": None, "both": "7"}


def test_a_version_may_stand_in_what_a_file_includes(tmp_path):
    write(tmp_path, "_rules", "output_type: multiple_choice\nmetadata:\n  version: 4\n")
    write(tmp_path, "first.yaml", "include: _rules\ntask: first\n")
    write(tmp_path, "second.yaml", "include: _rules\ntask: second\nmetadata: {version: 5}\n")
    write(tmp_path, "round.yaml", "include: round.yaml\ntask: round\n")  # lm-eval's to refuse
    found = task_index.in_folder(tmp_path)
    assert found == {"first": "4", "second": "5", "round": None}


def test_lm_eval_says_the_same_of_a_folder(tmp_path):
    write(tmp_path, "_rules", "output_type: multiple_choice\nmetadata:\n  version: 4\n")
    write(tmp_path, "first.yaml", "include: _rules\ntask: first\n")
    write(tmp_path, "second.yaml", "include: _rules\ntask: second\nmetadata: {version: 1.0}\n")
    code = (
        "import json, sys; from lm_eval.tasks import TaskManager; "
        "index = TaskManager(include_path=sys.argv[1], include_defaults=False).task_index; "
        "print(json.dumps({n: str(e.cfg['metadata']['version']) for n, e in index.items()}))"
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
    kept = {"arc_easy": "1.0", "ai2_arc": None}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from importlib import metadata

    folder = tmp_path / "llama_bench"
    folder.mkdir()
    name = f"lm-eval-{metadata.version('lm-eval')}-task-versions.json"
    (folder / name).write_text(json.dumps(kept))
    assert task_index.of_lm_eval() == kept
    monkeypatch.setattr(metadata, "version", _not_installed)
    with pytest.raises(ValueError, match="lm-eval is not installed"):
        task_index.of_lm_eval()


def _not_installed(name):
    from importlib import metadata

    raise metadata.PackageNotFoundError(name)
