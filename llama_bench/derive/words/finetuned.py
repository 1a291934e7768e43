"""One fine-tuned model of a size: its score, and the baselines that this is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llama_bench.derive.words import show
from llama_bench.derive.words.measured import Number, share


@dataclass(frozen=True)
class Outcome:
    """One model, fine-tuned by one method on `fraction` of the data: the main score after it, and
    what that is held against. `runs` are its rows of `finetunings`; `label_shares` is, per label,
    the share of the test items that it is right for.

    Test examples too long for the context are cut there for scores and left out of all else, so
    that baselines may be of fewer items than a score."""

    model: str
    params: float
    origin: str
    method: str
    fraction: float
    runs: Any
    after: Number | None
    before: Number | None
    zero: Number | None
    gain: Number | None
    over_zero: Number | None
    label_shares: dict[str, float] = field(default_factory=dict)

    def mean(self, column: str) -> float | None:
        found = self.runs[column].mean()
        return None if show.absent(found) else float(found)

    @property
    def left_out(self) -> float:
        """Test examples that were too long for the context."""
        return self.mean("test_left_out") or 0

    @property
    def items(self) -> float:
        """Of a score; baselines may be of fewer."""
        return self.mean("test_examples") + self.left_out

    def beyond(self, items: float) -> float:
        """The share of the score's items that a baseline of so many is not of: what it scores on
        all of them is within that of what it scored."""
        return 1 - items / self.items

    @property
    def frozen(self) -> Number | None:
        """Of the items that fit; its error is that of a share of them."""
        return share(self.mean("frozen_accuracy"), self.mean("frozen_items"))

    @property
    def forgotten(self) -> float | None:
        """How far bits per byte of the corpus rose."""
        ends = [self.mean(f"forgetting_bits_per_byte_{when}") for when in ("before", "after")]
        return None if None in ends else ends[1] - ends[0]

    @property
    def majority(self) -> float | None:
        """Of all items where labels are counted, else of `majority_items` that fit."""
        right = self._label_right
        return self.mean("majority_accuracy") if right.isna().any() else float(right.mean())

    @property
    def majority_items(self) -> float:
        return self.mean("test_examples") if self._label_right.isna().any() else self.items

    @property
    def _label_right(self):
        """Per run, the share of all test items that the commonest training label is right for;
        null of answers that are written."""
        return self.runs["majority_label"].map(self.label_shares).astype(float)
