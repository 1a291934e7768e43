"""A small real corpus, prepared once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_bench.measure.job import carry_out
from llama_bench.specs import Corpus, PrepareSpec


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """The prepare record of about 400 kB of the standard library, 512 ids."""
    corpus = Corpus(source="python-stdlib", version="test", max_bytes=400_000)
    spec = PrepareSpec(corpus=corpus, vocab_size=512, held_out=0.1)
    path = tmp_path_factory.mktemp("prepare") / spec.id / "record.json"
    carry_out("prepare", spec.canonical(), path, [])
    return path
