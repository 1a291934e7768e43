"""Work on many items at once, halved wherever memory runs out, so that it is done all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from llama_bench.measure.memory import is_out_of_memory, release

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_halves(work: Callable[[list[Item]], list[Answer]], items: list[Item]) -> list[Answer]:
    """`work(items)`, or the answers of both halves, as often as needed. One item that does not
    fit alone raises what it raised."""
    try:
        return work(items)
    except Exception as error:
        if len(items) == 1 or not is_out_of_memory(error):
            raise
    release()  # after the exception is forgotten, and with it the tensors of its frames
    half = len(items) // 2
    return in_halves(work, items[:half]) + in_halves(work, items[half:])
