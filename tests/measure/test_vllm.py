"""The vLLM engine: what is asked over HTTP, and what becomes of a server that fails.

vLLM itself is not here. A process that speaks its endpoints stands in, so these are tests of the
protocol: exact counts, the server's start and end, every failure a row or a status.
"""

import itertools
import json
import os
import sys
from pathlib import Path

import completion_server as server
import pytest
import torch

from llama_bench.measure import probe
from llama_bench.measure.probing import vllm_server
from llama_bench.records import Refusal
from llama_bench.shape import Shape
from llama_bench.specs import Pretrained, ProbeSpec

SHAPE = Shape(layers=1, width=32, heads=2)
VOCAB = 50


def run(tmp_path, **changes) -> dict:
    asked = {
        "model": SHAPE,
        "vocab_size": VOCAB,
        "device": "cpu",
        "engine": "vllm",
        "phases": ("prefill", "decode"),
        "batches": (1, 3),
        "contexts": (40,),
        "repeats": 2,
        "seconds": 0.0,
    }
    spec = ProbeSpec(**(asked | changes))
    result = probe.run(spec, tmp_path, [], lambda *where: None)
    json.dumps(result, allow_nan=False)
    return result


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """What the stand-in was asked, in order; it is `installed` while the test runs."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{server.__file__}" "$@"\n')
    python.chmod(0o755)
    path = tmp_path / "notes"
    monkeypatch.setenv(vllm_server.PYTHON, str(python))
    monkeypatch.setenv(server.NOTES, str(path))
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_counts_are_exact_and_nothing_ends_early(tmp_path, notes):
    result = run(tmp_path)
    assert result["engine"] == {"name": "vllm", "version": "0.0.test"}
    started, *requests = notes()
    for cell in result["cells"]:
        assert cell["status"] == "ok"
        assert len(cell["seconds"]) == 2
        assert cell["tokens"] == cell["batch"] * (5 if cell["phase"] == "decode" else 40)
        assert cell["kv_bytes"] is cell["peak_bytes"] is cell["load"] is None
    for request in requests:
        assert request["path"] == "/v1/completions"
        assert request["max_tokens"] == request["min_tokens"]
        assert request["ignore_eos"] is True
        assert request["temperature"] == 0
        filled = {(False, 1): (40, 35), (True, 6): (35,)}
        lengths = {len(prompt) for prompt in request["prompt"]}
        assert lengths <= set(filled[request["stream"], request["max_tokens"]])
        assert len(lengths) == 1
        assert all(0 <= token < VOCAB for prompt in request["prompt"] for token in prompt)
    assert not is_running(started["pid"])


def test_prefill_asks_for_what_the_server_has_not_seen_and_decode_for_what_it_has(tmp_path, notes):
    run(tmp_path, batches=(2,))
    requests = notes()[1:]
    prefills = [json.dumps(r["prompt"]) for r in requests if len(r["prompt"][0]) == 40]
    decodes = [json.dumps(r["prompt"]) for r in requests if len(r["prompt"][0]) == 35]
    assert len(set(prefills)) == len(prefills) >= 4
    rounds = [list(same) for _, same in itertools.groupby(decodes)]
    assert len(rounds) == len(set(decodes)) == 2, "each round has prompts of its own"
    assert all(len(same) >= 2 for same in rounds), "asked once, and then asked again"


def test_the_server_is_told_precision_length_and_that_weights_are_random(tmp_path, notes):
    run(tmp_path, precision="bfloat16", phases=("prefill",), contexts=(16, 40))
    words = " ".join(notes()[0]["words"])
    assert words.startswith("-m vllm.entrypoints.openai.api_server --host 127.0.0.1 --port ")
    assert "--dtype bfloat16" in words
    assert "--max-model-len 41 " in words
    assert "--max-num-seqs 3" in words
    assert "--load-format dummy" in words
    # keys and values of 3 sequences of 256 tokens, a whole block, twice; 2 bytes a number
    assert f"--kv-cache-memory-bytes {2 * 3 * 256 * SHAPE.kv_bytes_per_token(2)}" in words
    assert notes()[0]["threads"] == str(torch.get_num_threads())
    folder = Path(words.split("--model ")[1].split()[0])
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == VOCAB
    assert len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) == VOCAB


def test_load_starts_a_server_for_each_repeat_from_weights_on_disk(tmp_path, notes):
    cell, *_ = run(tmp_path, phases=("load", "prefill"), batches=(1,))["cells"]
    starts = [each for each in notes() if "pid" in each]
    assert len(starts) == 3, "two cold starts, and one for the grid"
    assert ["dummy" in each["words"] for each in starts] == [False, False, True]
    assert cell["status"] == "ok"
    for whole, load, first in zip(
        cell["seconds"], cell["load_seconds"], cell["first_token_seconds"], strict=True
    ):
        assert whole == load + first
    assert cell["import_seconds"] is None
    assert not (tmp_path / "cold_start").exists()
    assert not any(is_running(each["pid"]) for each in starts)


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("memory", "out-of-memory", "CUDA out of memory"),
        ("start", "refused", r"vllm did not start: ValueError: no such model \("),
    ],
)
def test_a_server_that_does_not_start_is_a_status(
    tmp_path, notes, monkeypatch, fault, status, said
):
    monkeypatch.setenv(server.FAULT, fault)
    with pytest.raises(Refusal, match=said) as caught:
        run(tmp_path)
    assert caught.value.status == status
    assert not is_running(notes()[0]["pid"])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("count", "counted"),
        ("break", "broke off"),
        ("fail", "vllm fails (500): RuntimeError: no kernel for this width ("),
    ],
)
def test_a_server_that_counts_otherwise_or_breaks_off_is_a_row(
    tmp_path, notes, monkeypatch, fault, said
):
    monkeypatch.setenv(server.FAULT, fault)
    for cell in run(tmp_path)["cells"]:
        assert cell["status"] == "refused"
        assert said in cell["reason"]
        assert cell["seconds"] == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [("merge", "first tokens in one event, 5 times"), ("mute", "does not count the tokens")],
)
def test_a_server_that_merges_first_tokens_or_does_not_count_them_is_not_timed(
    tmp_path, notes, monkeypatch, fault, said
):
    """In one event all tokens would have come in no time."""
    monkeypatch.setenv(server.FAULT, fault)
    for cell in run(tmp_path, seconds=0.01)["cells"]:
        assert cell["status"] == ("ok" if cell["phase"] == "prefill" else "refused")
        assert (said in (cell["reason"] or "")) == (cell["phase"] == "decode")


def test_one_answer_with_merged_first_tokens_is_asked_for_again(tmp_path, notes, monkeypatch):
    monkeypatch.setenv(server.FAULT, "hitch")
    (cell,) = run(tmp_path, phases=("decode",), batches=(3,))["cells"]
    assert cell["status"] == "ok"
    streamed = [each for each in notes()[1:] if each["stream"]]
    assert len(streamed) == 1 + cell["warmup_repeats"] + len(cell["seconds"])


@pytest.mark.parametrize("python", [None, sys.executable, "/nowhere/python"])
def test_not_installed_is_a_row_that_says_what_to_do(tmp_path, monkeypatch, python):
    monkeypatch.delenv(vllm_server.PYTHON, raising=False)
    if python:
        monkeypatch.setenv(vllm_server.PYTHON, python)
    result = run(tmp_path)
    assert result["engine"] is None
    assert result["parameters"] == SHAPE.parameters(VOCAB)
    assert [cell["status"] for cell in result["cells"]] == ["refused"] * 4
    assert all(vllm_server.PYTHON in cell["reason"] for cell in result["cells"])
    assert os.listdir(tmp_path) == [], "nothing was started or written"


def test_training_and_largest_batch_are_none_of_its_affairs(tmp_path, notes):
    result = run(tmp_path, phases=("train", "prefill"), max_batch=True)
    statuses = {cell["phase"]: cell["status"] for cell in result["cells"]}
    assert statuses == {"train": "refused", "prefill": "ok"}
    assert [row["status"] for row in result["largest_batches"]] == ["refused"]


def test_a_context_of_the_models_whole_length_leaves_no_room_for_a_token(tmp_path, notes, shared):
    """The pretrained one ends at 512; vLLM counts the token drawn last, which is never fed."""
    pretrained = {"model": None, "vocab_size": None, "pretrained": Pretrained(digest="0")}
    asked = ProbeSpec(
        **pretrained,
        **dict(device="cpu", engine="vllm", phases=("decode",), batches=(1,)),
        **dict(contexts=(504, 512, 1024), repeats=1, seconds=0.0),
    )
    folder = shared("models", "stories260K")
    cells = probe.run(asked, tmp_path, [folder], lambda *where: None)["cells"]
    assert [cell["status"] for cell in cells] == ["ok", "refused", "refused"]
    assert "longer than max-model-len" in cells[1]["reason"]
    assert "beyond the model's maximum, 512" in cells[2]["reason"]
    words = notes()[0]["words"]
    assert words[words.index("--model") + 1] == str(folder)


def test_weights_of_a_few_bits_are_refused_before_anything_starts(tmp_path, notes):
    cells = run(tmp_path, precision="int8")["cells"]
    assert {cell["status"] for cell in cells} == {"refused"}
    assert not (tmp_path / "notes").exists()
