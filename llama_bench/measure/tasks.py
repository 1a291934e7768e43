"""Held-out documents become lm-eval tasks, usable with the lm_eval command as they lie there.

    lm_eval --model hf --model_args pretrained=X --include_path tasks --tasks heldout_next_line

One task for each thing that people ask of a language model: to foretell text, to fill a gap, to
tell right from wrong, to choose, to classify, to find an answer in what it has read, to write. The
questions follow from the documents and the seed alone; a task that the corpus does not allow is
left out, with the reason.

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

from llama_bench.fields import UserError
from llama_bench.measure.labelled import files
from llama_bench.measure.labelled.labels import end_of
from llama_bench.measure.questions import passages, questions, task_files
from llama_bench.measure.questions.broken_code import broken_code
from llama_bench.measure.questions.broken_prose import broken_prose
from llama_bench.measure.questions.task_files import CHOICE, GREEDY, ROLLING, Kind, Metric, generate
from llama_bench.measure.text import held_out
from llama_bench.specs import TasksSpec
from llama_bench.specs.tasks import running_grammar

LEAST_ITEMS = 20  # fewer tell nothing: the standard error of a share would exceed 0.1
ONE_ANSWER = 12  # a constant answer may be right for one item in so many

Writer = Callable[[str, random.Random], Iterator[questions.Row]]


@dataclass(frozen=True)
class Task:
    """`writer` yields rows of one document; `lacking` is what a corpus without them lacks. No
    answer is right for more than one item in `one_answer`."""

    writer: Writer
    kind: Kind
    description: str
    lacking: str
    one_answer: int = ONE_ANSWER


def run(spec: TasksSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Write `folder`/tasks; docs/protocol.md has the keys. Raises UserError without its input."""
    if spec.grammar != running_grammar():
        raise UserError(
            f"these tasks are by the grammar of Python {spec.grammar or '3.11'}, and this is "
            "another; run the study and its jobs with the same Python"
        )
    documents = held_out.test_texts(inputs[0].parent)
    asked_about = {name for name, _ in documents}.intersection(*map(files.unseen, inputs[1:]))
    out = folder / "tasks"
    task_files.write_functions(out)
    written, left_out = {}, {}
    tasks = _tasks(documents)
    for done, (name, task) in enumerate(tasks.items()):
        progress(done, len(tasks), name)
        all_rows = _rows(task, documents, spec.items, f"{spec.seed}:{name}")
        rows = [row for row in all_rows if row["document"] in asked_about]
        if len(rows) < min(spec.items, LEAST_ITEMS):
            few = len(rows) < len(all_rows)
            lacking = "too few documents that fine-tuning left" if few else task.lacking
            left_out[name] = f"{lacking}: {len(rows)} of {spec.items} items could be written"
            task_files.remove(out, name)
            continue
        chance = _chance(task.kind, rows)
        task_files.write(out, name, task.kind, task.description, rows, chance)
        written[name] = {
            "items": len(rows),
            "metric": task.kind.metrics[0].name,
            "chance": chance,
            "higher_is_better": task.kind.metrics[0].higher_is_better,
            "description": task.description,
        }
    progress(len(tasks), len(tasks), "tasks written")
    return {"tasks": written, "left_out": left_out}


def _tasks(documents: list[tuple[str, str]]) -> dict[str, Task]:
    return {**_of_likelihood(documents), **_of_generation([text for _, text in documents])}


def _of_likelihood(documents: list[tuple[str, str]]) -> dict[str, Task]:
    parts = passages.parts(documents)
    return {
        "heldout_bits_per_byte": Task(
            questions.pieces,
            ROLLING,
            "bits per byte of unseen text, in pieces of at most 512 bytes",
            "too little held-out text",
        ),
        "heldout_cloze": Task(
            passages.clozes,
            CHOICE,
            "the missing word of a line among four that the text before has",
            "words do not recur within a context",
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
        "heldout_grammar": Task(
            broken_prose,
            CHOICE,
            "an English line against the same line with one word wrong",
            "no English sentences in the held-out documents",
        ),
        "heldout_part": Task(
            partial(passages.from_parts, parts=parts),
            CHOICE,
            f"which part of the corpus a text is from: {', '.join(sorted(set(parts.values())))}",
            "documents that lie in no folders or files to tell apart",
            one_answer=max(1, len(set(parts.values()))),
        ),
        "heldout_identifier": Task(
            questions.identifiers,
            GREEDY,
            "the last part of a name, or second of two words, seen together before; greedy",
            "names and pairs of words do not recur within a context",
        ),
    }


def _of_generation(texts: list[str]) -> dict[str, Task]:
    usual = questions.usual_ends(texts)
    exact = Metric("exact_match")
    return {
        "heldout_question": Task(
            passages.questions,
            generate(passages.ANSWER_BYTES, exact, Metric("token_f1")),
            "the answer to a question about a passage, found in it and generated",
            "no assignments or unique phrases to ask about",
        ),
        "heldout_line_end": Task(
            partial(questions.line_ends, usual=usual),
            generate(questions.END_BYTES, exact, Metric("chrf", "chrf")),
            "the rest of a line, generated and matched exactly",
            "no line's end is usual or repeated",
        ),
    }


def _rows(task: Task, documents: list, items: int, seed: str) -> list[questions.Row]:
    """At most `items` rows: documents take turns, so that a long one does not speak for all."""
    order = random.Random(seed)
    sources = [
        (name, task.writer(text, random.Random(f"{seed}:{name}")))
        for name, text in order.sample(documents, len(documents))
    ]
    most_alike = -(-items // task.one_answer)
    rows, asked, answers = [], set(), Counter()
    while sources and len(rows) < items:
        still = []
        for name, source in sources:
            row = next(source, None)
            if row is None:
                continue
            still.append((name, source))
            question = json.dumps([row.get(key) for key in ("context", "text", "choices")])
            answer = row.get("target", row.get("part"))
            if question in asked or (answer is not None and answers[answer] >= most_alike):
                continue
            if end_of(row.get("choices", ())):
                continue  # one that begins another can never be less likely than it
            asked.add(question)
            answers[answer] += 1
            rows.append({"document": name, **row})
            if len(rows) == items:
                break
        sources = still
    return rows


def _chance(kind: Kind, rows: list[questions.Row]) -> float:
    """Of a constant answer, or one drawn evenly, whichever is right more often."""
    if kind is ROLLING:
        return 8.0
    constant = Counter(row.get("target", row.get("part")) for row in rows)
    if kind is not CHOICE:
        return constant.most_common(1)[0][1] / len(rows)
    named = constant.most_common(1)[0][1] / len(rows) if "part" in rows[0] else 0.0
    return max(1 / len(rows[0]["choices"]), named)
