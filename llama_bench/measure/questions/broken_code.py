"""Valid Python against the same code minimally broken, after BLiMP's minimal pairs.

Warstadt et al. 2020 (arXiv 1912.00582): a model that knows the grammar finds the grammatical one of
two sentences likelier, when they differ in one place. Here Python's own parser is the judge: the
good snippet parses, the broken one does not. Its grammar changes with its version (that of
f-strings in 3.12), so the version is in the tasks' spec. What was broken is kept as the item's
`construction`.
"""

from __future__ import annotations

import ast
import random
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator

SNIPPET_BYTES = (60, 300)
MOST_LINES = 14

_KEYWORDS = (
    "if", "elif", "else", "for", "while", "in", "is", "not", "and", "or", "def", "class", "return",
    "import", "from", "as", "try", "except", "with", "raise", "lambda",
)  # fmt: skip
_KEYWORD = re.compile(rf"\b({'|'.join(_KEYWORDS)})\b")
_HEAD = re.compile(r"[ ]*(class|def|for|if|try|while|with)\b.*[:({\[]\s*$")


def broken_code(text: str, rng: random.Random) -> Iterator[dict]:
    """Pairs from one document; none from a text that is not Python."""
    for snippet in _snippets(text, rng):
        kinds = list(BREAKS)
        rng.shuffle(kinds)
        for kind in kinds:
            bad = _first_invalid(BREAKS[kind](snippet, rng))
            if bad is not None:
                label = rng.randrange(2)
                choices = [bad, bad]
                choices[label] = snippet
                yield {"context": "", "choices": choices, "label": label, "construction": kind}
                break


def parses(code: str) -> bool:
    """Whether the running interpreter's parser takes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in string literals
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def _snippets(text: str, rng: random.Random) -> Iterator[str]:
    """Compound statements with their blocks, some lines long, their indentation taken off."""
    lines = text.split("\n")
    heads = [number for number, line in enumerate(lines) if _HEAD.match(line)]
    least, most = SNIPPET_BYTES
    for number in rng.sample(heads, len(heads)):
        snippet = textwrap.dedent("\n".join(_block(lines, number)))
        if least <= len(snippet.encode()) <= most and parses(snippet):
            yield snippet


def _block(lines: list[str], head: int) -> list[str]:
    """The line `head` and what is indented deeper below it, blank lines at the end left off."""
    depth = len(lines[head]) - len(lines[head].lstrip())
    end = head + 1
    while end < len(lines) and end < head + MOST_LINES:
        line = lines[end]
        if line.strip() and len(line) - len(line.lstrip()) <= depth:
            break
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    return lines[head:end]


def _first_invalid(candidates: Iterator[str]) -> str | None:
    """Of a few candidates, the first that the parser refuses (an edit inside a string is none)."""
    for _, candidate in zip(range(6), candidates, strict=False):
        if not parses(candidate):
            return candidate
    return None


def _edits(pattern: str, replace: Callable[[re.Match], str], code: str, rng) -> Iterator[str]:
    """The code with one match replaced, matches in random order."""
    matches = list(re.finditer(pattern, code, re.MULTILINE))
    for match in rng.sample(matches, len(matches)):
        yield code[: match.start()] + replace(match) + code[match.end() :]


def _colon(code, rng):
    return _edits(r":$", lambda m: "", code, rng)


def _bracket(code, rng):
    other = {")": "]", "]": ")", "}": ")"}
    edits = (lambda m: "", lambda m: other[m.group()], lambda m: 2 * m.group())
    return _edits(r"[)\]}]", rng.choice(edits), code, rng)


def _keyword(code, rng):
    return _edits(_KEYWORD.pattern, lambda m: rng.choice(_KEYWORDS), code, rng)


def _indent(code, rng):
    step = rng.choice(("  ", " "))
    deeper = _edits(r"(?<=\n)[ ]+(?=\S)", lambda m: m.group() + step, code, rng)
    shallower = _edits(r"(?<=:\n)[ ]+(?=\S)", lambda m: "", code, rng)
    return deeper if rng.random() < 0.5 else shallower


def _quote(code, rng):
    return _edits(r"(?<=\w)[\"'](?![\"'])", lambda m: "", code, rng)


def _comma(code, rng):
    return _edits(r", (?=[\w\"'])", lambda m: " ", code, rng)


def _operator(code, rng):
    return _edits(r" (=|==|\+|-|\*) (?=\w)", lambda m: f" {m.group(1)} {m.group(1)} ", code, rng)


BREAKS: dict[str, Callable[[str, random.Random], Iterator[str]]] = {
    "colon": _colon,
    "bracket": _bracket,
    "keyword": _keyword,
    "indent": _indent,
    "quote": _quote,
    "comma": _comma,
    "operator": _operator,
}
