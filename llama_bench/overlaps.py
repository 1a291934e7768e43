"""How much of a reference a written text has: BLEU, chrF and TER, from counts that add up.

Each is a function of sums over segments (matched n-grams, their totals, lengths; Papineni et al.
2002, Popović 2015, Snover et al. 2006), so a segment's counts are all that a score of any choice of
segments needs. Counted and scored by sacrebleu, as in lm-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

METRICS = ("bleu", "chrf", "chrf++", "ter")


@cache
def _scorer(metric: str) -> Any:
    from sacrebleu.metrics import BLEU, CHRF, TER  # late: 0.1 s, and few tasks need it

    known = {"bleu": BLEU, "chrf": CHRF, "chrf++": lambda: CHRF(word_order=2), "ter": TER}
    return known[metric]()


def counts(metric: str, references: Sequence[str], written: str) -> list[float] | None:
    """Of one segment with one reference or more; None where sacrebleu's insides, which are no
    promise of its, are not as they were."""
    try:
        (row,) = _scorer(metric)._extract_corpus_statistics([written], [[r] for r in references])
    except (AttributeError, TypeError, ValueError):
        return None
    return [float(each) for each in row]


def score(metric: str, sums: Sequence[float]) -> float:
    """Of segments whose counts sum to `sums`, from 0 to 100 (TER may exceed it)."""
    return float(_scorer(metric)._compute_score_from_stats(list(sums)).score)
