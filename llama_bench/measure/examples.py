"""Labelled examples for fine-tuning, split so that no document is in two parts.

    lm_eval --model hf --model_args pretrained=X --include_path tasks --tasks finetune_part

They are written from held-out documents, which no training has seen, or read from a corpus of rows.
What a model is fine-tuned on is a prompt and its answer as one text; the test part is an lm-eval
task of the same texts, so that scores before and after are asked in the same words. Answers are
told apart by their likelihood where they are a few labels (labelled/labels.py: all with an end,
where one begins another), and otherwise written, up to the end that the training's answers have.

All tasks that are written from held-out documents divide them alike, whichever of them are asked
for. Those documents are left that no training or validation example is from: on them forgetting is
measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_bench.fields import UserError
from llama_bench.measure.labelled import docstrings, files, from_parts, from_rows
from llama_bench.measure.labelled.division import divide, in_turns, kinship
from llama_bench.measure.labelled.example import END, Example, rank
from llama_bench.measure.labelled.labels import end_of, ended, named
from llama_bench.measure.text import held_out
from llama_bench.measure.text.near_duplicates import groups, sketches
from llama_bench.specs import ExamplesSpec

TRAIN, TEST, VALIDATION = DEALT = ("train", "test", "validation")
LEAST_TEST = 20  # fewer tell nothing: the standard error of a share would exceed 0.1
MOST_LABELS = 200  # each of them is scored for each test example
REPEATED = "a repeated example"

Parts = dict[str, list[Example]]


@dataclass(frozen=True)
class Found:
    """All examples that there are, each once; `tasks` are those by which their documents are
    divided (division.py). `near` names, for a held-out document, the first of those that are nearly
    the same. With `choices` answers are labels, and otherwise end with `end`."""

    examples: list[Example]
    tasks: list[tuple[list[Example], bool]]
    near: dict[str, str]
    choices: bool
    description: str
    end: str = END


def run(spec: ExamplesSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Write the parts, the unseen documents and the task; docs/protocol.md has the keys.

    Raises UserError where the corpus cannot be read or gives too little.
    """
    key = f"finetune.{spec.task.removeprefix('finetune_')}"
    documents = held_out.test_texts(inputs[0].parent)
    left_out: Counter[str] = Counter()
    progress(0, 3, "looking for examples")
    found = _found(spec, key, documents, inputs[1:], left_out)
    progress(1, 3, f"{len(found.examples)} examples to split")
    parts = _split(spec, found, left_out)
    labels = sorted({e.answer for e in parts[TRAIN]}) if found.choices else None
    _check(spec, key, parts, labels)
    if labels:
        end = end_of(labels)
        labels = [label + end for label in labels]
        parts = {part: ended(held, end) for part, held in parts.items()}
    progress(2, 3, "writing them")
    for part in (TRAIN, VALIDATION):
        files.write_part(folder / f"{part}.parquet", parts[part], labels)
    trained_on = {found.near.get(e.document) for part in (TRAIN, VALIDATION) for e in parts[part]}
    unseen = [each for each in documents if found.near.get(each[0], each[0]) not in trained_on]
    files.write_unseen(folder, unseen)
    longest = max(_bytes(e) for held in parts.values() for e in held)
    about = files.write_task(
        folder / "tasks", spec.task, found.description, parts[TEST], labels, found.end, longest
    )
    progress(3, 3, "examples written")
    choices = list(map(named, labels)) if labels else None
    return {"task": spec.task, "choices": choices, **_counts(parts, labels, left_out), **about}


def _counts(parts: Parts, labels: list[str] | None, left_out: Counter[str]) -> dict:
    def each(count) -> dict:
        return {part: count(parts[part]) for part in (TRAIN, VALIDATION, TEST)}

    def by_label(held: list[Example]) -> dict[str, int]:
        given = Counter(example.answer for example in held)
        return {named(label): given[label] for label in labels}

    return {
        "examples": each(len),
        "documents": each(lambda held: len({example.document for example in held})),
        "answer_bytes": each(lambda held: sum(map(_bytes, held))),
        "left_out": {reason: count for reason, count in sorted(left_out.items()) if count},
        "label_counts": each(by_label) if labels else None,
    }


def _bytes(example: Example) -> int:
    return len(example.answer.encode())


def _found(
    spec: ExamplesSpec, key: str, documents: list, paths: list[Path], left_out: Counter
) -> Found:
    if not spec.corpus:
        return _of_documents(spec.source, key, documents, left_out)
    read, end = from_rows.examples(spec, key, paths, left_out)
    asked = " ".join(f"{spec.prompt} -> {spec.answer}".split())
    if not read:
        raise UserError(f"{key}.examples: no row has a prompt and an answer ({asked})")
    examples = _once(read, lambda each: each[1:])
    left_out[REPEATED] += len(read) - len(examples)
    return Found(examples, [(examples, spec.choices)], {}, spec.choices, asked, end)


def _of_documents(source: str, key: str, documents: list, left_out: Counter) -> Found:
    """A prompt that several documents have is asked once. Labels come first: they have the fewest
    documents."""
    near = _near(documents)
    found = {
        "part": from_parts.examples(documents, near),
        "docstring": docstrings.examples(documents),
    }
    if not found[source]:
        lacking = {
            "part": "the held-out documents are not from two folders or files to tell apart, of "
            f"{from_parts.LEAST_DOCUMENTS} documents each",
            "docstring": "no Python code with docstrings is in the held-out documents",
        }
        raise UserError(
            f"{key}.examples: {source} is not possible with this corpus: {lacking[source]}"
        )
    once = {name: _once(made, lambda each: each.prompt) for name, made in found.items()}
    left_out[REPEATED] += len(found[source]) - len(once[source])
    about = "the first line of a docstring, from the signature of its function or class"
    if source == "part":
        names = sorted({example.answer.strip() for example in found[source]})
        about = f"which part of the corpus an excerpt is from: {', '.join(names)}"
    tasks = [(once["part"], True), (once["docstring"], False)]
    return Found(once[source], tasks, near, source == "part", about)


def _once(examples: list[Example], asked: Callable) -> list[Example]:
    """The first by name of a document of those that are `asked` the same."""
    found: dict = {}
    for example in sorted(examples):
        found.setdefault(asked(example), example)
    return list(found.values())


def _near(documents: list[tuple[str, str]]) -> dict[str, str]:
    group = groups(sketches([text.encode() for _, text in documents])).tolist()
    first: dict[int, str] = {}
    for (name, _), number in zip(documents, group, strict=True):
        first[number] = min(name, first.get(number, name))
    return {name: first[number] for (name, _), number in zip(documents, group, strict=True)}


def _split(spec: ExamplesSpec, found: Found, left_out: Counter) -> Parts:
    """Labels that cannot be learnt, because the training part lacks them, are left out."""
    kin = found.near or kinship(found.examples)
    shares = (1 - spec.test - spec.validation, spec.test, spec.validation)
    part_of = divide(found.tasks, kin, shares, spec.seed)
    divided: Parts = {part: [] for part in DEALT}
    for example in sorted(found.examples, key=lambda each: rank(spec.seed, *each)):
        divided[DEALT[part_of[kin[example.document]]]].append(example)
    parts = _bounded(spec, divided)
    if not found.choices:
        return parts
    known = {example.answer for example in parts[TRAIN]}
    kept = {part: [e for e in held if e.answer in known] for part, held in parts.items()}
    lost = sum(len(parts[part]) - len(kept[part]) for part in DEALT)
    left_out["a label that the training part lacks"] += lost
    return kept


def _bounded(spec: ExamplesSpec, parts: Parts) -> Parts:
    """At most `items` in all."""
    test, validation = (int(spec.items * share + 0.5) for share in (spec.test, spec.validation))
    most = {TRAIN: spec.items - test - validation, TEST: test, VALIDATION: validation}
    labels = len({example.answer for held in parts.values() for example in held})
    bounded = {}
    for part, held in parts.items():
        of_label = {}
        if spec.source == "part":
            of_label = {e.answer: -(-most[part] // labels) for e in held}
        elif spec.choices:  # rows of one's own keep their shares of labels
            given = Counter(example.answer for example in held)
            of_label = {label: -(-most[part] * n // len(held)) for label, n in given.items()}
        bounded[part] = in_turns(held, most[part], spec.seed, of_label)
    return bounded


def _check(spec: ExamplesSpec, key: str, parts: Parts, labels: list[str] | None) -> None:
    """Raises UserError for what nothing could be told from; more `items` are advised where it is
    they that end the test part."""
    more = ", or raise items" if len(parts[TEST]) >= int(spec.items * spec.test + 0.5) else ""
    if labels is not None and not 2 <= len(labels) <= MOST_LABELS:
        raise UserError(
            f"{key}: the training part has {len(labels)} labels; 2 to {MOST_LABELS} can be told "
            "apart (choices: false is for answers that are written)"
        )
    tested = {example.answer for example in parts[TEST]}
    empty = [label.strip() for label in labels or [] if label not in tested]
    if empty:
        some = ", ".join(map(repr, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise UserError(
            f"{key}: {len(empty)} of {len(labels)} labels have no test example ({some}); give each "
            f"at least three documents, or leave its rows out{more}"
        )
    if len(parts[TEST]) < LEAST_TEST or not all(parts.values()):
        told = ", ".join(f"{part} {len(held)}" for part, held in parts.items())
        raise UserError(
            f"{key}: too few examples ({told}); of test {LEAST_TEST} are the least, and no part is "
            f"empty: give more documents, or larger shares for validation and test{more}"
        )
