"""What a score does not say about its items: which could not be scored, and which only in part.

Kept by task, document and request (lm-eval's own numbers of them), beside the answers that lm-eval
is given, which have no room for it.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from lm_eval.api.instance import Instance

from llama_bench.measure.evaluation.encoding import Pair

COUNTED = ("unscored", "truncated", "respelled", "lossy")


class Remarks:
    """`reasons` and `scored_bytes` by (task, document, request); `counts` by kind and task."""

    def __init__(self):
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.reasons: dict[tuple, str] = {}
        self.scored_bytes: dict[tuple, int] = {}

    def note(self, request: Instance, pair: Pair) -> None:
        key = (request.task_name, request.doc_id, request.idx)
        self.scored_bytes[key] = pair.scored_bytes
        if pair.reason:
            self.reasons[key] = pair.reason
        for kind, met in zip(
            COUNTED, (pair.reason, pair.truncated, pair.respelled, pair.lossy), strict=True
        ):
            self.counts[kind][request.task_name] += bool(met)

    def refuse(self, task: str, document: int, requests: int, reason: str) -> None:
        """Of an item that nothing can be right of, whatever its requests gave."""
        keys = [(task, document, request) for request in range(requests)]
        self.counts["unscored"][task] += not any(key in self.reasons for key in keys)
        for key in keys:
            self.reasons.setdefault(key, reason)

    def of(self, task: str) -> dict[str, int]:
        """The four counts of a task."""
        return {kind: self.counts[kind][task] for kind in COUNTED}
