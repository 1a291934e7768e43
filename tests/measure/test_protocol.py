"""docs/protocol.md explains every key that a probe and the limits leave in their records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from llama_bench.measure import limits, probe
from llama_bench.shape import Shape
from llama_bench.specs import LimitsSpec, ProbeSpec

TINY = Shape(layers=1, width=32, heads=2, ffn_width=64)
COUNTS = {"all", "without_embeddings", "in_matrix_products"}  # explained with train


def keys(content: Any) -> Iterator[str]:
    """Of a record's result, at every depth."""
    if isinstance(content, dict):
        yield from content
    for part in content.values() if isinstance(content, dict) else content:
        if isinstance(part, dict | list):
            yield from keys(part)


def explained(repository, *verbs: str) -> set[str]:
    """Every name that stands as code in the sections of these verbs."""
    text = (repository / "docs" / "protocol.md").read_text()
    sections = dict(re.findall(r"^## (\w+)$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    spans = re.findall(r"`([^`]+)`", " ".join(sections[verb] for verb in verbs))
    return {word for span in spans for word in re.findall(r"\w+", span)}


def test_of_limits(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.0)
    result = limits.run(LimitsSpec(device="cpu"), tmp_path, [], lambda *where: None)
    vendor = {"flops_per_second", "bytes_per_second", "source"}
    assert {*keys(result), *vendor} - explained(repository, "limits", "probe") == set()


def test_of_a_probe(repository, tmp_path):
    asked = {"phases": ("prefill", "decode", "train"), "batches": (1,), "contexts": (8,)}
    asked |= {"repeats": 1, "seconds": 0.0, "max_batch": True}
    spec = ProbeSpec(model=TINY, vocab_size=64, device="cpu", **asked)
    result = probe.run(spec, tmp_path, [], lambda *where: None)
    assert set(keys(result)) - explained(repository, "limits", "probe") - COUNTS == set()
