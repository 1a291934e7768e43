"""Which of a task's metrics tells the task: the task's own, else the first that people look at.

A task's own is what its file lists first, but for a perplexity, beside which many tasks list what
counts right answers: it is compared beside the main metric, whatever that is.
"""

from __future__ import annotations

from collections.abc import Iterable

# in the order in which they are preferred
ORDER = ("acc", "acc_norm", "exact_match", "bits_per_byte", "f1", "token_f1")
# of one item: right or wrong, or a share; what a sigmoid can be fitted to
SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match", "f1", "token_f1")
# of written text: how much of it a reference has, from 0 to this; ROUGE is told both ways
OVERLAPS = {"chrf": 100.0, "chrf++": 100.0, "bleu": 100.0}
_ROUGE = "rouge"
# bits per byte of the right answer (measure/evaluation/choices.py)
TASK_LOSS = "gold_bits_per_byte"


def most(metric: str, values: Iterable[float]) -> float | None:
    """The best score that a bounded metric can have, its worst being 0; None of any other."""
    if metric in SHARES:
        return 1.0
    if metric.startswith(_ROUGE):
        return 100.0 if max(values, default=0.0) > 1 else 1.0
    return OVERLAPS.get(metric)


def of(metrics: Iterable[str], own: str | None = None) -> str:
    """One of `metrics`: `own`, what the task itself names, where it is among them."""
    known = set(metrics)
    if own in known and not own.endswith("perplexity"):
        return own
    places = {name: ORDER.index(name) if name in ORDER else len(ORDER) for name in known}
    return min(known, key=lambda name: (places[name], name != own, name))
