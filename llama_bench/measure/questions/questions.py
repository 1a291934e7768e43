"""Questions written from text: pieces, next lines, identifiers, ends of lines.

A writer is a function of one document that yields rows, in an order drawn by `rng`; `tasks` takes
turns among the documents. Every row is plain text, so a question is the same for every tokenizer,
and short, so that a window of 256 tokens of a small vocabulary (about 3 bytes each) holds it
whole: a question that is cut for one model and not for another compares nothing.

Where text is cut is where tokenizers hurt: "ident" and "ity" are one token, so the answer to the
first is no token of its own, and lm-eval's own adapter ends the run. Answers begin with the blank
or mark right after a word, where the usual tokenizers split anyway, or at the start of a line.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise

PIECE_BYTES = 512
CONTEXT_BYTES = 320
LINE_BYTES = 90
POOL = 12  # lines to take the likest from: with many more, tiny models cannot tell any
END_BYTES = 16  # of an answer to be generated: never more tokens than bytes

Row = dict[str, object]

# the last part of a_name or a.name with what joins it, and two words of prose
_JOINED = {
    "part": re.compile(r"(?<![\w.])([^\W\d][\w.]*[^\W_])([._][^\W_]{3,})(?![\w.])"),
    "word": re.compile(r"(?<![\w.])([^\W\d_]{3,})( [^\W\d_]{4,})(?!\w)"),
}


def pieces(text: str, rng: random.Random) -> Iterator[Row]:
    """The document in pieces of at most PIECE_BYTES, cut at line ends."""
    held: list[str] = []
    size = 0
    whole: list[str] = []
    for line in text.splitlines(keepends=True):
        for part in _bounded(line):
            if size + len(part.encode()) > PIECE_BYTES:
                whole.append("".join(held))
                held, size = [], 0
            held.append(part)
            size += len(part.encode())
    whole = [piece for piece in (*whole, "".join(held)) if len(piece.strip()) >= 40]
    yield from ({"text": piece} for piece in rng.sample(whole, len(whole)))


def _bounded(line: str) -> Iterator[str]:
    """A line longer than a piece, in parts (a character is 4 bytes at most)."""
    if len(line.encode()) <= PIECE_BYTES:
        yield line
        return
    step = PIECE_BYTES // 4
    yield from (line[start : start + step] for start in range(0, len(line), step))


def next_lines(text: str, rng: random.Random) -> Iterator[Row]:
    """The line that follows, among three others of the same document that do not stand near."""
    lines, starts = _lines(text)
    usable = [number for number, line in enumerate(lines) if number and _says_something(line)]
    for number in rng.sample(usable, len(usable)):
        gold = lines[number]
        context = before(text, starts[number], CONTEXT_BYTES)
        seen = {line.strip() for line in context.split("\n")} | {gold.strip()}
        if len(seen) < 4:
            continue
        pool = [lines[other] for other in rng.sample(usable, min(POOL, len(usable)))]
        fresh = {line.strip(): line for line in pool if line.strip() not in seen}
        if len(fresh) < 3:
            continue
        # the likest in depth and length, or these alone would tell
        others = sorted(fresh.values(), key=lambda line: _unlike(line, gold))[:3]
        label = rng.randrange(4)
        others.insert(label, gold)
        yield {"context": context, "choices": others, "label": label}


def _says_something(line: str) -> bool:
    letters = sum(map(str.isalpha, line))
    return letters >= 6 and line == line.rstrip() and len(line.encode()) <= LINE_BYTES


def _unlike(line: str, gold: str) -> int:
    depth = abs(_indent(line) - _indent(gold))
    return depth + abs(len(line.strip()) - len(gold.strip()))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def identifiers(text: str, rng: random.Random) -> Iterator[Row]:
    """The last part of an identifier, or the second of two words, that occurred together before.

    In the context what comes first is never followed by anything else, so that copying is right.
    """
    found = [(match, kind) for kind, pattern in _JOINED.items() for match in pattern.finditer(text)]
    for match, kind in rng.sample(found, len(found)):
        first, second = match.groups()
        context = before(text, match.end(1), CONTEXT_BYTES)
        joined = rf"(?<![\w.]){re.escape(first + second[0])}(\w+)"
        if set(re.findall(joined, context)) == {second[1:]}:
            yield {"context": context, "target": second, "construction": kind}


def usual_ends(documents: list[str]) -> set[tuple[str, str]]:
    """(two words, end of line) pairs of a corpus that `line_ends` may ask for.

    Usual is an end seen three times or more, and after these words more often than all others.
    """
    lines = (line for text in documents for line in text.split("\n"))
    pairs = Counter(pair for line in lines for pair in _splits(line))
    heads: Counter = Counter()
    for (head, _), count in pairs.items():
        heads[head] += count
    return {pair for pair, count in pairs.items() if count >= 3 and 2 * count > heads[pair[0]]}


def line_ends(text: str, rng: random.Random, usual: set[tuple[str, str]]) -> Iterator[Row]:
    """The rest of a line: one that is usual after these words, or that stood in the context."""
    lines, starts = _lines(text)
    numbers = [number for number, line in enumerate(lines) if line == line.rstrip()]
    for number in rng.sample(numbers, len(numbers)):
        cuts = list(_splits(lines[number]))
        rng.shuffle(cuts)
        for head, end in cuts:
            position = starts[number] + len(lines[number]) - len(end)
            context = before(text, position, CONTEXT_BYTES)
            repeated = f"{head}{end}\n" in context
            if repeated or (head, end) in usual:
                kind = "repeated" if repeated else "usual"
                yield {"context": context, "target": end, "construction": kind}
                break


def _splits(line: str) -> Iterator[tuple[str, str]]:
    """(last two words, end of line) for every cut after a word that leaves a short end."""
    body = line.strip()[-80:]
    words = list(re.finditer(r"\w+", body))[len(body) == 80 :]  # the first may have been cut
    for one, two in pairwise(words):
        end = body[two.end() :]
        # an underscore is a mark to tokenizers: "__" and "(" may be one token
        if end and not two.group().endswith("_") and len(end.encode()) <= END_BYTES:
            yield body[one.start() : two.end()], end


def before(text: str, position: int, limit: int) -> str:
    """The text that ends at `position`, at most `limit` bytes, from the start of a line or word."""
    chunk = text[max(0, position - limit) : position]
    whole = position <= limit
    while len(chunk.encode()) > limit:
        chunk, whole = chunk[(len(chunk.encode()) - limit + 3) // 4 :], False
    if whole:
        return chunk
    for mark in ("\n", " "):
        cut = chunk.find(mark) + 1
        if 0 < cut <= len(chunk) // 2:
            return chunk[cut:]
    return chunk


def _lines(text: str) -> tuple[list[str], list[int]]:
    """Lines without their ends, and the position at which each begins."""
    lines = text.split("\n")
    return lines, list(accumulate((len(line) + 1 for line in lines[:-1]), initial=0))
