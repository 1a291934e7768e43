"""Which part of the corpus a text is from: excerpts of held-out documents, labelled.

The question is that of the held-out task `heldout_part`, so that a score before fine-tuning
compares; excerpts are shorter, for there should be many, and do not overlap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from llama_bench.measure.labelled.example import Example
from llama_bench.measure.questions import passages

EXCERPT_BYTES = 256  # with a vocabulary of 1,024, some 100 tokens
LEAST_LETTERS = 80
LEAST_DOCUMENTS = 3  # of a label: one for each part


def examples(documents: list[tuple[str, str]], near: dict[str, str]) -> list[Example]:
    """All excerpts of all labels; empty for a corpus of one part only."""
    found: dict[str, list[Example]] = defaultdict(list)
    part_of = passages.parts(documents)
    for name, text in documents:
        part = part_of.pop(text, None)  # a text that two documents have is one
        for excerpt in _excerpts(text) if part else ():
            prompt = f"{excerpt}\n\nThis text is from:"
            found[part].append(Example(name, prompt, f" {part}"))
    kept = [
        part
        for part, held in found.items()
        if len({near.get(each.document, each.document) for each in held}) >= LEAST_DOCUMENTS
    ]
    return [example for part in kept for example in found[part]] if len(kept) > 1 else []


def _excerpts(text: str) -> Iterator[str]:
    """Runs of whole lines of at most EXCERPT_BYTES; a line that is longer is left out."""
    held: list[str] = []
    size = 0
    for line in (*text.split("\n"), None):
        added = 0 if line is None else len(line.encode()) + 1
        if line is None or size + added > EXCERPT_BYTES:
            excerpt = "\n".join(held).strip("\n")
            if sum(map(str.isalpha, excerpt)) >= LEAST_LETTERS:
                yield excerpt
            held, size = [], 0
        if line is not None and added <= EXCERPT_BYTES:
            held.append(line)
            size += added
