"""Steps that a training text can go through, each optional, each counted.

Held-out text goes through none: it is the same for all variants of a corpus, and a step that made
it easier would flatter itself. The rules for whole documents are those of C4 (Raffel et al. 2019,
arXiv 1910.10683, section 2.2) and Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1) that
make sense for prose and for code; C4's terminal punctuation and curly brackets and Gopher's stop
words and hash signs would throw out all code. A word is a run of letters, digits and underscores;
texts in scripts without spaces have other words and should leave `length` and `characters` out.

- `unicode`: composed characters (NFC); control characters other than tab, line feed, form feed and
  carriage return, zero-width and direction marks (joiners excepted, which some scripts spell
  with), byte-order marks and U+FFFD are dropped.
- `whitespace`: blanks at the ends of lines (but for those after a backslash), more than two blank
  lines in a row, and blank lines around the document are dropped. Indentation stays.
- `exact_duplicates`: of equal texts the first stays.
- `near_duplicates`: of documents that are nearly the same the first stays.
- `length`: 50 to 100,000 words (Gopher).
- `characters`: mean length of words 3 to 10; a letter in at least 80 % of words; at most one
  ellipsis per ten words; at most 90 % of lines that begin with a bullet, and 30 % that end with an
  ellipsis (all Gopher); no "lorem ipsum" (C4).

Duplicates are looked for in the group of documents that are nearly the same: equal texts always
lie in one, so nothing but the group needs to be remembered.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np

FEWEST_WORDS, MOST_WORDS = 50, 100_000
SHORTEST_MEAN, LONGEST_MEAN = 3, 10
LEAST_ALPHABETIC = 0.8
MOST_ELLIPSES = 0.1
MOST_BULLETS, MOST_ENDING_IN_ELLIPSIS = 0.9, 0.3

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\ufff9-\ufffd]"
)
_TRAILING = re.compile(rb"(?<![\\ \t])[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(rb"\n{4,}")
_WORD = re.compile(r"\w+")
_NO_LETTER = re.compile(r"\b[\d_]+\b")
_BULLET = re.compile(r"^[ \t]*[-*•‣●▪]", re.MULTILINE)
_ELLIPSIS = re.compile(r"\.\.\.|…")
_ENDS_IN_ELLIPSIS = re.compile(r"(?:\.\.\.|…)[ \t]*$", re.MULTILINE)


def unicode(text: bytes) -> bytes:
    if text.isascii():
        return _CONTROL.sub(b"", text)
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", text.decode())).encode()


def whitespace(text: bytes) -> bytes:
    stripped = _BLANK_LINES.sub(b"\n\n\n", _TRAILING.sub(b"", text)).lstrip(b"\n")
    body = stripped.rstrip(b"\n")
    return body + b"\n" * (len(body) < len(stripped))


def has_fitting_length(text: bytes) -> bool:
    return FEWEST_WORDS <= len(_WORD.findall(text.decode())) <= MOST_WORDS


def has_usual_characters(text: bytes) -> bool:
    said = text.decode()
    words, lines = _WORD.findall(said), said.strip().count("\n") + 1
    count = len(words)
    if not count or "lorem ipsum" in said.lower():
        return False
    return (
        SHORTEST_MEAN * count <= sum(map(len, words)) <= LONGEST_MEAN * count
        and count - len(_NO_LETTER.findall(said)) >= LEAST_ALPHABETIC * count
        and len(_ELLIPSIS.findall(said)) <= MOST_ELLIPSES * count
        and len(_BULLET.findall(said)) <= MOST_BULLETS * lines
        and len(_ENDS_IN_ELLIPSIS.findall(said)) <= MOST_ENDING_IN_ELLIPSIS * lines
    )


_CHANGES = {"unicode": unicode, "whitespace": whitespace}
_TESTS = {"length": has_fitting_length, "characters": has_usual_characters}
COUNTS = ("documents_removed", "bytes_removed", "documents_changed", "documents", "bytes")


def cleaned(steps: tuple[str, ...], texts: list[bytes], counts: np.ndarray) -> list[bytes]:
    """What is left of one group of documents that are nearly the same, in their order.

    `counts` (steps, COUNTS) is added to.
    """
    left = texts
    for row, step in zip(counts, steps, strict=True):
        before = len(left), sum(map(len, left))
        changed = 0
        if step in _CHANGES:
            new = [_CHANGES[step](text) for text in left]
            pairs = [(old, text) for old, text in zip(left, new, strict=True) if text.strip()]
            changed = sum(old != text for old, text in pairs)
            left = [text for _, text in pairs]
        elif step in _TESTS:
            left = [text for text in left if _TESTS[step](text)]
        else:
            left = left[:1] if step == "near_duplicates" else list(dict.fromkeys(left))
        after = len(left), sum(map(len, left))
        row += (before[0] - after[0], before[1] - after[1], changed, *after)
    return left


def report(steps: tuple[str, ...], counts: np.ndarray) -> list[dict]:
    """One row per step, as the record has them."""
    return [
        {"step": step, **dict(zip(COUNTS, row, strict=True))}
        for step, row in zip(steps, counts.tolist(), strict=True)
    ]
