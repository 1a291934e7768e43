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
_OTHER = {"is": "are", "are": "is", "was": "were", "were": "was", "has": "have", "does": "do"}
_SUBJECT = {"him": "he", "them": "they", "us": "we", "me": "I"}
_NO_VERBS = {"not", "also", "only", "never", "always", "still", "just", "even", "now", "then", "be"}
_PREPOSITIONS = "of|in|to|for|with|from|by|on|at|into"


def broken_prose(text: str, rng: random.Random) -> Iterator[dict]:
    """Pairs from one document; none from a text without English lines."""
    lines = [line for line in map(_bare, text.split("\n")) if _is_prose(line)]
    for good in rng.sample(lines, len(lines)):
        made = list(CONSTRUCTIONS)
        rng.shuffle(made)
        for construction in made:
            pattern, replace = CONSTRUCTIONS[construction]
            places = [m for m in re.finditer(pattern, good) if replace(m) != m.group()]
            if not places:
                continue
            match = rng.choice(places)
            bad = good[: match.start()] + replace(match) + good[match.end() :]
            label = rng.randrange(2)
            choices = [bad, bad]
            choices[label] = good
            yield {"context": "", "choices": choices, "label": label, "construction": construction}
            break


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
    "agreement": (r"(?<= )(is|are|was|were|has|does)(?= )", lambda m: _OTHER[m.group()]),
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
