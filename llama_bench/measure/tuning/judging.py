"""What a model is asked before and after its fine-tuning: its answers, and what it forgot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from llama_bench.measure import held_out_loss
from llama_bench.measure.labelled.files import UNSEEN
from llama_bench.measure.training.engine import Engine
from llama_bench.measure.tuning.answers import Part

TOO_SHORT = (
    "the held-out documents that no example is from are shorter than one window of {} tokens; hold "
    "out more (data.held_out), or give the fine-tuning a shorter context"
)


@dataclass(frozen=True)
class Unseen:
    """Windows (windows, context + 1) of the held-out documents that no example is from, in the
    tokens of one tokenizer, and the bytes of each id."""

    windows: np.ndarray
    token_bytes: np.ndarray

    @classmethod
    def of(cls, examples: Path, tokenizer: Path, context: int) -> Unseen | None:
        """Those of an examples run's folder; None where they are TOO_SHORT."""
        texts = pq.ParquetFile(examples / UNSEEN).read(["text"])["text"].to_pylist()
        found = held_out_loss.windows_of_texts(texts, tokenizer, context)
        return found and cls(*found)

    def loss(self, model) -> dict[str, Any]:
        nats = held_out_loss.losses(model, self.windows)
        lengths = self.token_bytes[self.windows[:, 1:]]
        text, size = lengths > 0, int(lengths.sum())
        bits = float(nats[text].sum() / math.log(2) / size) if size else None
        return {"loss": float(nats.mean()), "bits_per_byte": bits, "tokens": int(nats.size)}


class Judge:
    """The same questions at every time; without `unseen` nothing can be forgotten."""

    def __init__(self, engine: Engine, parts: dict[str, Part], unseen: Unseen | None):
        self.engine, self.parts, self.unseen = engine, parts, unseen

    def measured(self, model) -> dict[str, Any]:
        validation, _ = loss_of(self.engine, self.parts["validation"])
        test, error = loss_of(self.engine, self.parts["test"])
        return {
            "validation_loss": validation,
            "test_loss": test,
            "test_loss_standard_error": error,
            "unseen": self.unseen and self.unseen.loss(model),
        }


def loss_of(engine: Engine, part: Part) -> tuple[float, float | None]:
    """Nats per answer token over all answer tokens of a part, and the standard error over its
    examples: that of a ratio of sums, linearised."""
    sums = np.empty(len(part))
    for rows in part.batches(engine.micro_batch):
        sums[rows] = engine.losses(part.batch(rows)).double().sum(1).cpu().numpy()
    counts = part.answer_lengths
    loss = float(sums.sum() / counts.sum())
    if len(part) < 2:
        return loss, None
    rest = sums - loss * counts
    deviation = math.sqrt(float((rest**2).sum()) * len(part) / (len(part) - 1))
    return loss, deviation / float(counts.sum())
