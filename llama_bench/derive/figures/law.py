"""The fitted law against the runs. A fit that did not converge is told of and never drawn."""

from __future__ import annotations

from collections.abc import Iterator

from llama_bench.derive.drawing import Figure


def draw(tables, fits) -> Iterator[Figure]:
    yield from ()


def isolines(ax, ladder, fits, colours) -> str:
    return ""
