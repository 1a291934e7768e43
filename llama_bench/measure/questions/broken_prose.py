"""An English line against the same line with one word wrong, after BLiMP's minimal pairs.

Warstadt et al. 2020 (arXiv 1912.00582). What was broken is kept as the item's `construction`. The
good line is what somebody wrote; each construction breaks a rule that hardly any line is exempt
from, and leaves a line alone where it finds no place.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

LINE_BYTES = (30, 200)

_VOWEL = re.compile(r"[aeio]|u(?!ni|s[aei]|til|r[aeo])", re.IGNORECASE)
_OTHER = {
    "is": "are", "are": "is", "was": "were", "were": "was", "has": "have", "does": "do",
    "to have": "to has", "these": "this", "those": "that",
}  # fmt: skip
_SUBJECT = {"him": "he", "them": "they", "us": "we", "me": "I"}
_NO_VERBS = {"not", "also", "only", "never", "always", "still", "just", "even", "now", "then", "be"}
_PREPOSITIONS = "of|in|to|for|with|from|by|on|at|into"


def broken_prose(text: str, rng: random.Random) -> Iterator[dict]:
    """Pairs from one document; none from a text without English lines."""
    lines = [line for line in map(_bare, text.split("\n")) if _is_prose(line)]
    for good in rng.sample(lines, len(lines)):
        made = [(name, bad) for name in CONSTRUCTIONS for bad in _broken(good, name)]
        if not made:
            continue
        # a longer text is a less likely one: let the broken line be the shorter where it can
        no_longer = [each for each in made if len(each[1]) <= len(good)]
        names = sorted({name for name, _ in (no_longer or made)})
        construction = rng.choice(names)
        bad = rng.choice([text for name, text in (no_longer or made) if name == construction])
        label = rng.randrange(2)
        choices = [bad, bad]
        choices[label] = good
        yield {"context": "", "choices": choices, "label": label, "construction": construction}


def _broken(good: str, construction: str) -> list[str]:
    """The line broken in every place that the construction finds."""
    pattern, replace = CONSTRUCTIONS[construction]
    return [
        good[: match.start()] + replace(match) + good[match.end() :]
        for match in re.finditer(pattern, good)
        if replace(match) != match.group()
    ]


def _bare(line: str) -> str:
    return line.strip().removeprefix("#").strip()


def _is_prose(line: str) -> bool:
    """Words with blanks between them, hardly anything else, some of them English."""
    least, most = LINE_BYTES
    if not least <= len(line.encode()) <= most:
        return False
    usual = sum(c.isalpha() or c in " ,.;'-" for c in line)
    return usual >= 0.95 * len(line) and len(re.findall(r"\b(the|of|and|to|is|a)\b", line)) >= 2


def _article(match: re.Match) -> str:
    right = "an" if _VOWEL.match(match.group(2)) else "a"
    if match.group(1) != right or len(match.group(2)) < 3:
        return match.group()  # an exception to the rule, such as "an hour"
    return f"{'a' if right == 'an' else 'an'} {match.group(2)}"


def _verb(match: re.Match) -> str:
    verb = match.group(2)
    if verb in _NO_VERBS or verb.endswith(("s", "ly", "ed", "ing")):
        return match.group()
    return f"{match.group(1)} {verb}s"


CONSTRUCTIONS: dict[str, tuple[str, Callable[[re.Match], str]]] = {
    "article": (r"\b(an?) ([a-z]+)\b", _article),
    "agreement": (
        r"(?<= )(is|are|was|were|has|does|to have|these(?= [a-z]+s )|those(?= [a-z]+s ))(?= )",
        lambda m: _OTHER[m.group()],
    ),
    "order": (
        rf"(?<= )({_PREPOSITIONS}) (the|a|an|this|these)(?= )",
        lambda m: f"{m.group(2)} {m.group(1)}",
    ),
    "verb": (r"\b(can|will|must|should|may|would|could|cannot) ([a-z]{3,})\b", _verb),
    "pronoun": (
        rf"\b({_PREPOSITIONS}) (him|them|us|me)\b",
        lambda m: f"{m.group(1)} {_SUBJECT[m.group(2)]}",
    ),
}
