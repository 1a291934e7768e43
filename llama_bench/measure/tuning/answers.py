"""Labelled examples as token ids, and which of their tokens are the answer.

A prompt and its answer are one text, split into tokens as an evaluation splits it (`bos` says what
stands before it, blanks at the prompt's end go with the answer), so that what is learned is what is
scored. An example that is longer than the context would lose its beginning; it is left out, and
counted.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from llama_bench.measure.evaluation import chat
from llama_bench.measure.evaluation.encoding import Encoding
from llama_bench.measure.labelled.labels import named
from llama_bench.measure.training.objective import IGNORED
from llama_bench.measure.training.tokens import Order
from llama_bench.records import Refusal
from llama_bench.specs import FinetuneSpec

PARTS = ("train", "validation", "test")
TOO_LONG = "longer than the context"
_UNCUT = 2**40  # a window that no example fills

LeftOut = dict[str, dict[str, int]]  # part -> reason -> examples
Row = tuple[str, str, str]  # a prompt, its answer, and the name of that


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and answer, the answer's from `start` on; and the answer as it is named:
    as written, a label without its end."""

    ids: list[int]
    start: int
    answer: str


class Part:
    """The examples of one part that fit, as batches padded on the right."""

    def __init__(self, examples: list[Example]):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def answers(self) -> list[str]:
        return [example.answer for example in self.examples]

    @property
    def answer_lengths(self) -> np.ndarray:
        return np.array([len(each.ids) - each.start for each in self.examples], dtype=np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens that the model reads: the last one is only foretold."""
        return np.array([len(each.ids) - 1 for each in self.examples], dtype=np.int64)

    def batch(self, rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, (rows, longest) int64; targets outside the answers are IGNORED."""
        taken = [self.examples[row] for row in rows]
        longest = max(len(each.ids) for each in taken) - 1
        inputs = torch.zeros((len(taken), longest), dtype=torch.int64)
        targets = torch.full((len(taken), longest), IGNORED, dtype=torch.int64)
        for place, each in enumerate(taken):
            end = len(each.ids) - 1
            inputs[place, :end] = torch.tensor(each.ids[:-1])
            targets[place, each.start - 1 : end] = torch.tensor(each.ids[each.start :])
        return inputs, targets

    def batches(self, rows: int) -> Iterator[np.ndarray]:
        """Numbers of examples of like length, `rows` at a time."""
        order = np.argsort(-self.lengths, kind="stable")
        return (order[first : first + rows] for first in range(0, len(order), rows))

    def longest(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch that needs the most memory: the longest example, over and over."""
        return self.batch([int(self.lengths.argmax())] * rows)

    def steps(self, order: Order, steps: range) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return (self.batch(order.step(step)) for step in steps)


def read(spec: FinetuneSpec, folder: Path, task: str, tokenizer) -> tuple[dict[str, Part], LeftOut]:
    """The parts of an examples run, and how many examples of each were left out for which reason.

    Raises Refusal where a part has none left.
    """
    encoding = Encoding(tokenizer, _UNCUT, spec.bos)
    rows = {name: _labelled(folder / f"{name}.parquet") for name in PARTS[:2]}
    rows["test"] = _test(folder / "tasks" / f"{task}.jsonl")
    if spec.fraction is not None:
        rows["train"] = rows["train"][: math.ceil(spec.fraction * len(rows["train"]))]
    left_out: dict[str, Counter[str]] = {name: Counter() for name in PARTS}
    parts = {name: Part(_encoded(spec, rows[name], encoding, left_out[name])) for name in PARTS}
    for name, part in parts.items():
        if not len(part):
            reason = f"none of the {len(rows[name])} {name} examples fits {spec.context} tokens"
            raise Refusal(
                "refused",
                f"{reason}; shorten them, or give the fine-tuning a longer context (of models "
                "trained here with train.context)",
            )
    return parts, {name: dict(counts) for name, counts in left_out.items() if counts}


def absent_labels(parts: dict[str, Part], choices: list[str] | None) -> dict[str, list[str]] | None:
    """Labels that no example of train has, and those that none of validation has: the test part
    asks for them all the same. None where answers are written."""
    if not choices:
        return None
    held = {name: set(parts[name].answers) for name in PARTS[:2]}
    return {name: [each for each in choices if each not in held[name]] for name in PARTS[:2]}


def _labelled(path: Path) -> list[Row]:
    rows = pq.ParquetFile(path).read(["prompt", "answer", "label"]).to_pylist()
    return [_row(row["prompt"], row["answer"], row["label"] is not None) for row in rows]


def _test(path: Path) -> list[Row]:
    """The rows that lm-eval reads, their answers as those that are trained on."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [
        _row(row["context"], row["choices"][row["label"]], True)
        if "choices" in row
        else _row(row["context"], row["answer"], False)
        for row in rows
    ]


def _row(prompt: str, answer: str, is_label: bool) -> Row:
    return prompt, answer, named(answer) if is_label else answer


def _encoded(spec: FinetuneSpec, rows: list[Row], encoding: Encoding, left_out: Counter):
    asked = [(_prompt(spec, prompt, encoding.tokenizer), answer) for prompt, answer, _ in rows]
    found = []
    for (_, _, name), pair in zip(rows, encoding.pairs(asked), strict=True):
        if pair.reason or len(pair.ids) > spec.context:
            left_out[pair.reason or TOO_LONG] += 1
        else:
            found.append(Example(pair.ids, pair.start, name))
    return found


def _prompt(spec: FinetuneSpec, prompt: str, tokenizer) -> str:
    if not spec.chat_template:
        return prompt
    return chat.rendered(tokenizer, [{"role": "user", "content": prompt}], True)
