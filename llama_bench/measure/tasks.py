"""Held-out documents become lm-eval tasks, usable with the lm_eval command as they lie there.

    lm_eval --model hf --model_args pretrained=X --include_path tasks --tasks heldout_next_line

The folder holds for each task a YAML file and its rows, and one small Python file that reads rows
(`datasets`' own loader keeps a cache by absolute path, and takes seconds). Nothing in it names a
place, so it can be copied anywhere. The questions follow from the documents and the seed alone.

A score says something only against chance, so every task knows its own: the share of choices, 8
bits per byte, or the share of items that the best constant answer gets right.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from llama_bench.fields import UserError
from llama_bench.measure import questions
from llama_bench.measure.broken_code import broken_code
from llama_bench.records import write_text
from llama_bench.specs import TasksSpec

VERSION = 1  # of the questions; stands beside every score
LEAST_ITEMS = 20  # fewer tell nothing: the standard error of a share would exceed 0.1
ONE_ANSWER = 12  # a constant answer may be right for one item in so many

Writer = Callable[[str, random.Random], Iterator[questions.Row]]

LOADER = '''"""Reads the rows that lie beside this file; lm-eval calls it from the YAML files."""

import json
from pathlib import Path

import datasets


def load(file, **_):
    """The rows of one task as its test split."""
    with open(Path(__file__).parent / file, encoding="utf-8") as lines:
        return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
'''


@dataclass(frozen=True)
class Kind:
    """One of lm-eval's request types: how its YAML reads, and its main metric."""

    yaml: dict
    metrics: tuple[str, ...]
    aggregation: str = "mean"
    higher_is_better: bool = True


ROLLING = Kind(
    {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"},
    ("bits_per_byte",),
    aggregation="bits_per_byte",
    higher_is_better=False,
)
CHOICE = Kind(
    {
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
    },
    ("acc", "acc_norm"),
)
GREEDY = Kind(
    {"output_type": "loglikelihood", "doc_to_text": "context", "doc_to_target": "target"}, ("acc",)
)
GENERATE = Kind(
    {
        "output_type": "generate_until",
        "doc_to_text": "context",
        "doc_to_target": "target",
        "generation_kwargs": {
            "until": ["\n"],
            "do_sample": False,
            "max_gen_toks": questions.END_BYTES,
        },
    },
    ("exact_match",),
)


@dataclass(frozen=True)
class Task:
    """`writer` yields rows of one document; `lacking` is what a corpus without them lacks."""

    writer: Writer
    kind: Kind
    description: str
    lacking: str


def run(spec: TasksSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Write `folder`/tasks; docs/protocol.md has the keys. Raises UserError without its input."""
    documents = _held_out(inputs[0].parent / "held_out.parquet")
    out = folder / "tasks"
    write_text(out / "held_out.py", LOADER)
    written, left_out = {}, {}
    tasks = _tasks([text for _, text in documents])
    for done, (name, task) in enumerate(tasks.items()):
        progress(done, len(tasks), name)
        rows = _rows(task.writer, documents, spec.items, f"{spec.seed}:{name}")
        if len(rows) < min(spec.items, LEAST_ITEMS):
            left_out[name] = f"{task.lacking}: {len(rows)} of {spec.items} items could be written"
            for stale in (out / f"{name}.yaml", out / f"{name}.jsonl"):
                stale.unlink(missing_ok=True)
            continue
        written[name] = _write(out, name, task, rows)
    progress(len(tasks), len(tasks), "tasks written")
    return {"tasks": written, "left_out": left_out}


def _tasks(texts: list[str]) -> dict[str, Task]:
    usual = questions.usual_ends(texts)
    return {
        "heldout_bits_per_byte": Task(
            questions.pieces,
            ROLLING,
            "bits per byte of unseen text, in pieces of at most 512 bytes",
            "too little held-out text",
        ),
        "heldout_next_line": Task(
            questions.next_lines,
            CHOICE,
            "the true next line among three others of the same document",
            "documents of too few lines",
        ),
        "heldout_valid_code": Task(
            broken_code,
            CHOICE,
            "valid Python against the same code broken in one place",
            "no Python in the held-out documents",
        ),
        "heldout_identifier": Task(
            questions.identifiers,
            GREEDY,
            "the last part of a name, or second of two words, seen together before; greedy",
            "names and pairs of words do not recur within a context",
        ),
        "heldout_line_end": Task(
            partial(questions.line_ends, usual=usual),
            GENERATE,
            "the rest of a line, generated and matched exactly",
            "no line's end is usual or repeated",
        ),
    }


def _held_out(path: Path) -> list[tuple[str, str]]:
    try:
        table = pq.ParquetFile(path).read(["name", "text"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    return sorted(zip(table["name"].to_pylist(), table["text"].to_pylist(), strict=True))


def _rows(writer: Writer, documents: list, items: int, seed: str) -> list[questions.Row]:
    """At most `items` rows: documents take turns, so that a long one does not speak for all."""
    order = random.Random(seed)
    sources = [
        (name, writer(text, random.Random(f"{seed}:{name}")))
        for name, text in order.sample(documents, len(documents))
    ]
    most_alike = -(-items // ONE_ANSWER)
    rows, asked, answers = [], set(), Counter()
    while sources and len(rows) < items:
        still = []
        for name, source in sources:
            row = next(source, None)
            if row is None:
                continue
            still.append((name, source))
            question = json.dumps([row.get(key) for key in ("context", "text", "choices")])
            answer = row.get("target")
            if question in asked or (answer is not None and answers[answer] >= most_alike):
                continue
            asked.add(question)
            answers[answer] += 1
            rows.append({"document": name, **row})
            if len(rows) == items:
                break
        sources = still
    return rows


def _chance(kind: Kind, rows: list[questions.Row]) -> float:
    if kind is ROLLING:
        return 8.0
    if kind is CHOICE:
        return 1 / len(rows[0]["choices"])
    return Counter(row["target"] for row in rows).most_common(1)[0][1] / len(rows)


def _write(out: Path, name: str, task: Task, rows: list[questions.Row]) -> dict:
    kind, chance = task.kind, _chance(task.kind, rows)
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    write_text(out / f"{name}.jsonl", text)
    content = {
        "dataset_kwargs": {"file": f"{name}.jsonl"},
        "test_split": "test",
        "num_fewshot": 0,
        **kind.yaml,
        "target_delimiter": "",
        "metric_list": [
            {
                "metric": metric,
                "aggregation": kind.aggregation,
                "higher_is_better": kind.higher_is_better,
            }
            for metric in kind.metrics
        ],
        "metadata": {"version": VERSION, "chance": chance},
    }
    head = f"# {task.description}\ntask: {name}\ncustom_dataset: !function held_out.load\n"
    write_text(out / f"{name}.yaml", head + yaml.safe_dump(content, sort_keys=False))
    return {
        "items": len(rows),
        "metric": kind.metrics[0],
        "chance": chance,
        "higher_is_better": kind.higher_is_better,
        "description": task.description,
    }
