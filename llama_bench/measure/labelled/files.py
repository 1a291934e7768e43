"""Examples as files: two parts to train with, the third as an lm-eval task, and unseen documents.

Bytes follow from the examples alone: the same corpus, read again or in another order, gives the
same files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llama_bench.measure.labelled.example import Example
from llama_bench.measure.questions import task_files
from llama_bench.measure.questions.task_files import CHOICE, WHOLE_PROMPTS, Metric

UNSEEN = "unseen.parquet"
_TEXT = pa.string()
_EXAMPLES = {"document": _TEXT, "prompt": _TEXT, "answer": _TEXT, "label": pa.int32()}
_DOCUMENTS = {"name": _TEXT, "text": _TEXT}


def write_part(path: Path, examples: list[Example], labels: list[str] | None) -> None:
    """A label is its answer's place among the labels, which are as they are answered."""
    _write(
        path,
        _EXAMPLES,
        ((*e, labels.index(e.answer) if labels else None) for e in examples),
    )


def write_unseen(folder: Path, documents: Iterable[tuple[str, str]]) -> None:
    _write(folder / UNSEEN, _DOCUMENTS, documents)


def unseen(record: Path) -> set[str]:
    """Names of the held-out documents that no example of an examples run's train or validation
    part is from."""
    return set(pq.ParquetFile(record.parent / UNSEEN).read(["name"])["name"].to_pylist())


def _write(path: Path, columns: dict[str, pa.DataType], rows: Iterable[tuple]) -> None:
    values = list(zip(*rows, strict=True)) or [() for _ in columns]
    arrays = [pa.array(v, type_) for v, type_ in zip(values, columns.values(), strict=True)]
    table = pa.Table.from_arrays(arrays, names=list(columns))
    pq.write_table(table, path, compression="zstd")


def write_task(
    folder: Path, name: str, description: str, tests: list[Example], labels: list[str] | None,
    until: str, longest: int,
) -> dict:  # fmt: skip
    """The test part; written answers have `longest` bytes at most and end at `until`. A `target` is
    what must be written; its `answer` is that with the blanks and the end that are trained on.

    A prompt that fits beside its answer is asked whole, however long answers may be
    (evaluation/generation.py): it was trained on whole.

    Returns what the record says of the task. Chance is that of an even draw, or of the best
    constant answer.
    """
    metrics = (Metric("exact_match"), Metric("chrf", "chrf"))
    # no answer has more tokens than bytes
    kind = CHOICE if labels else task_files.generate(longest, *metrics, until=until)
    commonest = Counter(example.answer for example in tests).most_common(1)[0][1] / len(tests)
    chance = max(1 / len(labels), commonest) if labels else commonest
    rows = [_row(example, labels) for example in tests]
    task_files.write_functions(folder)
    told = {} if labels else {WHOLE_PROMPTS: True}
    task_files.write(folder, name, kind, description, rows, chance, **told)
    return {
        "metric": kind.metrics[0].name,
        "chance": chance,
        "higher_is_better": kind.metrics[0].higher_is_better,
        "description": description,
    }


def _row(example: Example, labels: list[str] | None) -> dict:
    asked = {"document": example.document, "context": example.prompt}
    if labels:
        return {**asked, "choices": labels, "label": labels.index(example.answer)}
    return {**asked, "target": example.answer.strip(), "answer": example.answer}
