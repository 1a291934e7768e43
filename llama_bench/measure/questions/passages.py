"""Questions about a passage: a word left out of it, where it is from, what it says.

Rows as in questions.py, bounded in the same way. The missing word stands among others of the
passage, as in the Children's Book Test (Hill et al. 2016, arXiv 1511.02301): a word that was not
seen before would be told by that alone. An answer that is to be found stands in the passage word
by word, and once only, as in SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250).
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from llama_bench.measure.labelled.labels import end_of
from llama_bench.measure.questions.questions import CONTEXT_BYTES, LINE_BYTES, Row, before

PARTS = 4
EXCERPT_BYTES = 320
PASSAGE_BYTES = 260
ANSWER_BYTES = 16  # never more tokens than bytes

_WORD = re.compile(r"(?<= )[^\W\d_]{4,}(?!\w)")
_SET_TO = re.compile(r"^[ ]*(\w+) = (\S.{0,15})$", re.MULTILINE)
_FOLLOWS = re.compile(r"(?<!\w)([^\W\d_]+ [^\W\d_]{3,}) ([^\W\d_]{3,16})(?!\w)")


def clozes(text: str, rng: random.Random) -> Iterator[Row]:
    """A line up to a word; the word and the line's rest, against three other words of the text
    before in its place, the likest in length."""
    found, asked = list(_WORD.finditer(text)), set()
    for match in rng.sample(found, len(found)):
        gold, end = match.group(), text.find("\n", match.end())
        if end in asked:
            continue  # a line is asked once
        rest = text[match.end() : end if end >= 0 else None]
        context = before(text, match.start() - 1, CONTEXT_BYTES)
        seen = set(re.findall(r"(?<!\w)[^\W\d_]{4,}(?!\w)", context))
        alike = [w for w in seen if w != gold and w[0].isupper() == gold[0].isupper()]
        if gold not in seen or len(alike) < 3 or len((gold + rest).encode()) > LINE_BYTES:
            continue
        asked.add(end)
        alike.sort(key=lambda word: (abs(len(word) - len(gold)), word))
        choices = [f" {word}{rest}" for word in alike[:3]]
        label = rng.randrange(4)
        choices.insert(label, f" {gold}{rest}")
        yield {"context": context, "choices": choices, "label": label}


def parts(documents: list[tuple[str, str]]) -> dict[str, str]:
    """Text -> part of the corpus, for the few parts that most documents are from: the topmost
    folder of a document's name, or the file that it is a piece of. Empty where there is one only.
    """
    of_text: dict[str, set[str]] = defaultdict(set)
    for name, text in documents:
        part = name.split("/")[0] if "/" in name else name.rpartition(":")[0].split(".")[0]
        of_text[text].add(part)
    known = {text: min(of) for text, of in of_text.items() if len(of) == 1 and min(of)}
    counts = Counter(known.values())
    largest = sorted((part for part in counts if counts[part] > 1), key=lambda p: (-counts[p], p))
    kept = set(largest[:PARTS])
    return {text: part for text, part in known.items() if part in kept} if len(kept) > 1 else {}


def from_parts(text: str, rng: random.Random, parts: dict[str, str]) -> Iterator[Row]:
    """Some lines of a document, and the names of the parts."""
    part = parts.get(text)
    if part is None:
        return
    names = sorted(set(parts.values()))
    labels = [f" {name}" for name in names]
    end = end_of(labels)
    starts = [match.end() for match in re.finditer(r"\n", text)] or [0]
    for start in rng.sample(starts, len(starts)):
        excerpt = _whole_lines(text, start, EXCERPT_BYTES)
        if sum(map(str.isalpha, excerpt)) < 100:
            continue
        yield {
            "context": f"{excerpt}\n\nThis text is from:",
            "choices": [label + end for label in labels],
            "label": names.index(part),
            "part": part,
        }


def questions(text: str, rng: random.Random) -> Iterator[Row]:
    """What a name is set to in a passage of code, or which word follows two others in prose."""
    patterns = {"assignment": _SET_TO, "following": _FOLLOWS}
    found = [
        (match, made) for made, pattern in patterns.items() for match in pattern.finditer(text)
    ]
    for match, made in rng.sample(found, len(found)):
        cue, answer = match.group(1), match.group(2).strip()
        line = text.rfind("\n", 0, match.start()) + 1
        passage = _whole_lines(text, line, PASSAGE_BYTES // 2)
        earlier = before(text, line, PASSAGE_BYTES // 2)
        passage = earlier + passage
        if made == "assignment":
            unique = len(re.findall(rf"(?<!\w){re.escape(cue)} = ", passage)) == 1
            question = f"What is {cue} set to?"
        else:
            unique = len(re.findall(rf"(?<!\w){re.escape(cue)}(?!\w)", passage)) == 1
            question = f'Which word follows "{cue}"?'
        if not unique or answer not in passage or len(answer.encode()) > ANSWER_BYTES:
            continue
        yield {
            "context": f"{passage}\n\nQ: {question}\nA:",
            "target": answer,
            "construction": made,
        }


def _whole_lines(text: str, start: int, limit: int) -> str:
    """Lines from `start` on, at most `limit` bytes; of a longer line its beginning."""
    chunk = text[start : start + limit]
    while len(chunk.encode()) > limit:
        chunk = chunk[: len(chunk) - (len(chunk.encode()) - limit + 3) // 4]
    end = chunk.rfind("\n")
    return chunk[:end] if end > 0 else chunk
