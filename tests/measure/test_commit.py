"""A model of the Hub: the commit in the record is the one whose weights were asked.

A folder laid out as the Hub's cache stands in for the Hub, with two commits of one repository.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import hub_server
import llama_server
import pytest
from huggingface_hub import constants
from tiny_llama import checkpoint

from llama_bench import records
from llama_bench.measure.job import Failure, carry_out
from llama_bench.measure.probing import vllm_server
from llama_bench.specs import EvaluateSpec, Pretrained

OLD, NEW = "a1" * 20, "b2" * 20
ROWS = """
import datasets
def load(**_):
    text = "import os\\nclass Reader:\\n    pass\\n"
    return {"test": datasets.Dataset.from_list([{"text": text}])}
"""
TASK = """
task: told
custom_dataset: !function rows.load
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{metric: bits_per_byte}]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory, prepared):
    """HF_HOME with `llamas/tiny`, whose `main` is the newer of two commits; task files."""
    folder = tmp_path_factory.mktemp("home")
    cache = folder / "hub/models--llamas--tiny"
    for seed, commit in enumerate((OLD, NEW)):
        (cache / "snapshots").mkdir(parents=True, exist_ok=True)
        checkpoint(cache / "snapshots" / commit, prepared, seed)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(NEW)
    (folder / "tasks").mkdir()
    (folder / "tasks/rows.py").write_text(ROWS)
    (folder / "tasks/told.yaml").write_text(TASK)
    return folder


@pytest.fixture
def evaluated(home, tmp_path, monkeypatch):
    """The record of a revision, or without one of the newer model by its path."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{llama_server.__file__}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(vllm_server.PYTHON, str(python))

    def evaluate(revision=None, cache=home / "hub", **given):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        repo = {"repo": "llamas/tiny", "revision": revision} if revision else {"digest": "0"}
        pretrained = Pretrained(**repo)
        spec = EvaluateSpec(pretrained=pretrained, tasks=("told",), include="digest", **given)
        output = tmp_path / spec.id / "record.json"
        inputs = [] if revision else [cache / "models--llamas--tiny/snapshots" / NEW]
        carry_out("evaluate", spec.canonical(), output, [*inputs, home / "tasks"])
        return records.read(output)

    return evaluate


@pytest.mark.parametrize("engine", [None, "vllm"])
def test_the_commit_that_a_revision_means_is_loaded_and_recorded(evaluated, engine):
    found = evaluated("main", engine=engine)
    assert found.status == "ok", found.reason
    about = found.result["model"]
    assert (about["repo"], about["commit"], about["path"]) == ("llamas/tiny", NEW, None)
    assert about["devices"] == 1
    by_path = evaluated().result
    assert by_path["model"]["commit"] is None and by_path["model"]["repo"] is None
    scores = [result["scores"][0]["value"] for result in (found.result, by_path)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-2 if engine else 1e-12)
    older = evaluated(OLD, engine=engine).result
    assert older["model"]["commit"] == OLD
    assert older["scores"][0]["value"] != pytest.approx(scores[0], rel=1e-2)


@pytest.mark.parametrize("engine", [None, "vllm"])
def test_weights_that_were_not_fetched_are_an_accident_not_an_answer(
    evaluated, home, tmp_path, engine
):
    lacking = shutil.copytree(home / "hub", tmp_path / "hub")
    next(lacking.glob(f"*/snapshots/{NEW}/model.safetensors")).unlink()
    said = r"llamas/tiny at main cannot be had from the Hub \(HF_HUB_OFFLINE"
    with pytest.raises(Failure, match=said):
        evaluated("main", cache=lacking, engine=engine)


class Hub(BaseHTTPRequestHandler):
    """Answers for one repository as the Hub does: its commit, its files, their bytes."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        files = {each.name: each.read_bytes() for each in self.server.folder.iterdir()}
        if path.startswith("/api/models/llamas/tiny/revision/"):
            return self._answer(json.dumps({"id": "llamas/tiny", "sha": NEW}).encode())
        if path.startswith("/api/models/llamas/tiny/tree/"):
            rows = [
                {"type": "file", "path": name, "size": len(content), "oid": name}
                for name, content in files.items()
            ]
            return self._answer(json.dumps(rows).encode())
        name = path.rpartition("/")[2]
        if name in files:
            self.server.asked.add(name)
            return self._answer(files[name])
        self.send_error(404)

    do_HEAD = do_GET

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", NEW)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def repository(home, tmp_path, monkeypatch):
    """A server on this machine in the Hub's place; its `folder` holds the repository's files."""
    newer = home / "hub/models--llamas--tiny/snapshots" / NEW
    folder = shutil.copytree(newer, tmp_path / "repository")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "consolidated.safetensors").write_bytes(b"the same weights again")
    with hub_server.in_its_place(Hub, monkeypatch) as server:
        server.folder, server.asked = folder, set()
        yield server


def test_what_a_model_needs_is_fetched_and_no_pickle(evaluated, repository, tmp_path):
    found = evaluated("main", cache=tmp_path / "cache")
    assert found.status == "ok", found.reason
    assert found.result["model"]["commit"] == NEW
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= repository.asked
    assert not {"pytorch_model.bin", "consolidated.safetensors"} & repository.asked


@pytest.mark.parametrize("engine", [None, "vllm"])
def test_a_repository_of_pickles_is_refused(evaluated, repository, tmp_path, engine):
    (repository.folder / "model.safetensors").unlink()
    found = evaluated("main", cache=tmp_path / "cache", engine=engine)
    assert found.status == "refused" and "no weights as safetensors" in found.reason
    assert "pytorch_model.bin" not in repository.asked
