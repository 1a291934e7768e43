"""What surrounds every measured run: status, log, lock, and one readable line for a mistake."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from training import spec_of

from llama_bench import records
from llama_bench.measure import process
from llama_bench.specs import Corpus, PrepareSpec


def command(verb: str, spec: str, output: Path, *inputs: Path) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "llama_bench", verb, spec, str(output), *map(str, inputs)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def prepare_spec() -> str:
    corpus = Corpus(source="files", files=("0" * 16,))
    return PrepareSpec(corpus=corpus, vocab_size=300, held_out=0.1).canonical()


def test_a_mistake_is_one_line_and_leaves_no_record(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("only one document")
    ended = command("prepare", prepare_spec(), tmp_path / "run" / "record.json", text)
    assert ended.returncode == 2
    assert "at least 3" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run" / "record.json").exists()


def test_a_wrong_spec_is_one_line(tmp_path):
    for spec, says in (('{"vocab": 3}', "vocab_size"), ("{", "prepare spec")):
        ended = command("prepare", spec, tmp_path / "record.json")
        assert ended.returncode == 2
        assert says in ended.stderr
        assert "Traceback" not in ended.stderr


def test_an_accident_leaves_a_log_and_no_record(prepared, tmp_path):
    """Token files that vanished: nothing that a user did, and no result either."""
    data = tmp_path / "data"
    shutil.copytree(prepared.parent, data, ignore=shutil.ignore_patterns("train.bin"))
    output = tmp_path / "train" / "record.json"
    ended = command("train", spec_of(prepared).canonical(), output, data / "record.json")
    assert ended.returncode == 1
    assert str(output.parent / "log.txt") in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Traceback" in (output.parent / "log.txt").read_text()
    assert not output.exists()


def test_a_finished_run_is_left_alone(prepared):
    before = prepared.stat().st_mtime_ns
    spec = records.read(prepared).spec
    ended = command("prepare", PrepareSpec(**spec).canonical(), prepared)
    assert ended.returncode == 0
    assert prepared.stat().st_mtime_ns == before


def test_two_jobs_never_work_on_one_run(tmp_path):
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = command("prepare", prepare_spec(), tmp_path / "record.json", tmp_path / "a.txt")
    assert ended.returncode == 1
    assert "another process" in ended.stderr


def test_threads_are_those_of_the_environment(prepared):
    assert records.read(prepared).provenance["threads"] == int(os.environ["OMP_NUM_THREADS"])


def test_an_unknown_verb_names_the_nearest(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "llama_bench", "trian", "{}", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "'train'" in ended.stderr


def test_time_to_go_is_told_by_the_pace_of_the_work(capfd, monkeypatch):
    """An hour of imports before the first progress is no pace."""
    now = [0.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    progress = process.Progress("work")
    for now[0], done in ((3600, 1), (3610, 2), (3640, 5)):
        progress(done, 10)
    told = [line.partition("(")[2] for line in capfd.readouterr().err.splitlines()]
    assert told == ["3600 s)", "3610 s, 80 s to go)", "3640 s, 50 s to go)"]


def test_cells_that_were_refused_are_told_where_the_work_is_watched(tmp_path, monkeypatch):
    """The record is whole, and nobody reads records while snakemake runs."""
    monkeypatch.delenv("LLAMA_BENCH_VLLM", raising=False)
    asked = {"phases": ["prefill", "decode"], "batches": [1], "contexts": [8], "repeats": 1}
    spec = {"model": {"layers": 1, "width": 32, "heads": 2}, "vocab_size": 50, "device": "cpu"}
    asked |= {"seconds": 0.0, "engine": "vllm"}
    output = tmp_path / "run" / "record.json"
    ended = command("probe", json.dumps(spec | asked), output)
    assert "2 of 2 cells refused: vllm is not installed" in ended.stderr
    assert records.read(output).status == "ok"
