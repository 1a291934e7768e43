"""Every study that comes with the project can be read, and asks for what there is."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from llama_bench import task_index
from llama_bench.study import load

REPOSITORY = Path(__file__).parent.parent
STUDIES = [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "studies").glob("*.yaml"))]
_NAMED = re.compile(r"^(?:task|group|tag):[ \t]*[\"']?([\w.+/-]+)", re.MULTILINE)


@pytest.fixture(scope="module")
def names():
    """Of lm-eval's tasks and groups, from the text of its files: its own index takes 13 s."""
    folder = Path(find_spec("lm_eval").origin).parent / "tasks"
    found = (_NAMED.findall(path.read_text(encoding="utf-8")) for path in folder.rglob("*.yaml"))
    return {name: None for several in found for name in several}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_it_loads_and_its_tasks_are_known(path, names, monkeypatch):
    """An unknown task is refused with its name when a study is read."""
    monkeypatch.setattr(task_index, "of_lm_eval", lambda: names)
    study = load({"file": str(path)})
    assert study.runs and study.name == ("default" if path.stem == "config" else path.stem)
    suites = study.config.evaluate.suites
    evaluated = {run.labels["suite"] for run in study.runs.values() if run.spec.verb == "evaluate"}
    assert set(suites) <= evaluated
    if path.stem.startswith("pretrained"):
        kinds = {"language", "reasoning", "classification", "questions", "translation", "summaries"}
        assert kinds <= set(suites)
        assert all(model.revision for model in study.config.models.pretrained)
