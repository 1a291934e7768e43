"""Which of a task's metrics tells the task: the task's own, else the first that people look at."""

from __future__ import annotations

from collections.abc import Iterable

# in the order in which they are preferred
ORDER = ("acc", "acc_norm", "exact_match", "bits_per_byte", "f1", "token_f1")
# of one item: right or wrong, or a share; what a sigmoid can be fitted to
SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match", "f1", "token_f1")
# bits per byte of the right answer (measure/evaluation/choices.py)
TASK_LOSS = "gold_bits_per_byte"


def of(metrics: Iterable[str], own: str | None = None) -> str:
    """One of `metrics`: `own`, what the task itself names, where it is among them."""
    known = set(metrics)
    if own in known:
        return own
    return min(known, key=lambda name: (ORDER.index(name) if name in ORDER else 99, name))
