"""Labels with an end, where they need one to be told apart by their likelihood.

A label that begins another ("1" and "10") can never be less likely than it, whatever a model knows:
all that continue it are counted for it. With a line's end after each, none begins another.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from llama_bench.measure.labelled.example import END, Example


def end_of(labels: Sequence[str]) -> str:
    """What all labels are followed by: nothing, where none of them begins another, or else as many
    line ends as it takes (one, if the labels are of one line)."""
    end = ""
    while any(b.startswith(a) for a, b in pairwise(sorted(label + end for label in labels))):
        end += END
    return end


def ended(examples: list[Example], end: str) -> list[Example]:
    return [each._replace(answer=each.answer + end) for each in examples]


def named(label: str) -> str:
    """A label as it is shown: without its end."""
    return label.rstrip(END)
