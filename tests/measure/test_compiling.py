"""Whether layers are compiled is measured once, kept, and the same for all alike runs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from training import spec_of

from llama_bench import records
from llama_bench.measure import model
from llama_bench.measure.job import carry_out
from llama_bench.measure.training import compiling, machine_facts
from llama_bench.measure.training.engine import Engine
from llama_bench.measure.training.tokens import Tokens


@pytest.fixture(scope="module")
def compiled_code(tmp_path_factory):
    return tmp_path_factory.mktemp("inductor")


@pytest.fixture(autouse=True)
def own_cache(compiled_code, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(compiled_code))


@pytest.fixture
def ready(prepared):
    """A spec, its engine, a batch, and what was said."""
    spec = spec_of(prepared)
    engine = Engine(model.build(spec.model, 512, 64, 0), spec, "alone", torch.device("cpu"))
    return spec, engine, Tokens(prepared.parent / "train.bin", 2, 64).take(np.arange(4)), []


def test_a_long_run_tries_and_what_it_finds_holds_for_short_ones(ready):
    spec, engine, batch, said = ready
    plain = engine.gradients(batch).item()
    engine.optimizer.zero_grad()
    compiling.choose(engine, spec, None, 10**9, batch, said.append)
    assert "compiled" in said[0]
    engine.be_compiled(True)
    assert engine.gradients(batch).item() == pytest.approx(plain, rel=1e-5)
    kept = machine_facts.recall("compile", compiling.subject(engine, spec))
    assert kept["compiled_seconds"] > 0
    engine.be_compiled(False)
    compiling.choose(engine, spec, None, 1, batch, said.append)
    assert engine.compiled == kept["compiled"]
    assert len(said) == 1


def test_a_short_run_does_not_try(ready):
    spec, engine, batch, said = ready
    compiling.choose(engine, spec, None, 1, batch, said.append)
    assert not engine.compiled
    assert not said
    compiling.choose(engine, spec, None, 10**9, batch, said.append)
    assert not engine.compiled, "the first to come decides, or alike runs would differ"
    assert not said


def test_a_machine_without_a_compiler_goes_on(ready, prepared, tmp_path):
    """The choice says compile, but there is nothing to compile with: one line, and a result."""
    spec, engine, _, _ = ready
    machine_facts.keep("compile", compiling.subject(engine, spec), {"compiled": True})
    output = tmp_path / spec.id / "record.json"
    words = [sys.executable, "-m", "llama_bench", "train", spec.canonical(), str(output)]
    empty = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "empty")}
    ended = subprocess.run(
        [*words, str(prepared)],
        env=os.environ | empty,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr.count("goes on without it") == 1
    assert records.read(output).result["compiled"] is False


def test_a_compiled_branch_equals_a_compiled_run_of_its_own(prepared, tmp_path):
    """A branch of a compiled trunk equals a compiled run of its own."""
    short, long = spec_of(prepared, tokens=10_000), spec_of(prepared, tokens=20_000)
    engine = Engine(model.build(short.model, 512, 64, 0), short, "alone", torch.device("cpu"))
    machine_facts.keep("compile", compiling.subject(engine, short), {"compiled": True})
    paths = {}
    for folder, spec, before in (("chain", short, []), ("chain", long, [short]), ("own", long, [])):
        path = tmp_path / folder / spec.id / "record.json"
        inputs = [prepared, *(tmp_path / folder / one.id / "record.json" for one in before)]
        carry_out("train", spec.canonical(), path, inputs)
        paths[folder] = path
    chained, own = (records.read(paths[folder]).result for folder in ("chain", "own"))
    assert chained["compiled"] and own["compiled"]
    assert chained["continued_from"] == short.id
    assert chained["loss"] == own["loss"]


def test_a_damaged_fact_is_found_out_again():
    machine_facts.keep("speed", {"of": 1}, 2.5)
    assert machine_facts.recall("speed", {"of": 1}) == 2.5
    assert machine_facts.keep("speed", {"of": 1}, 3.5) == 2.5, "the first to write wins"
    (path,) = machine_facts.cache().glob("machine/speed-*.json")
    path.write_text("{")
    assert machine_facts.recall("speed", {"of": 1}) is None
    assert machine_facts.keep("speed", {"of": 1}, 3.5) == 3.5
