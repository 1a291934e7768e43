"""One labelled example, and the random order that all of its kind are put in.

What is drawn, and in which order, follows from content and seed alone: a row's place in its file
and a file's place among others are accidents.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

END = "\n"  # of an answer that needs one: it is trained on, and where it is written it stops there


class Example(NamedTuple):
    """What is trained on is `prompt` and `answer` as one text, and the loss is the answer's alone.

    So the blank between the two belongs to the answer, as tokenizers join it to the word that
    follows. No part of a `document` trains if another part of it tests.
    """

    document: str
    prompt: str
    answer: str


def rank(seed: int, *texts: str) -> bytes:
    """A place in random order; not the same in orders of other texts."""
    return hashlib.sha256("\0".join([str(seed), *texts]).encode()).digest()
