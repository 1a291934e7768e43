"""Examples from a corpus of rows: JSONL, Parquet, or a dataset of the Hub.

Columns fill the templates. Blanks at a prompt's end go over to the answer, where tokenizers join
them to the word that follows. A written answer ends with a line's end, or, where answers have
several lines, with a blank line; line ends before it are the prompt's, for writing would stop at
the first.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from llama_bench.fields import UserError
from llama_bench.measure.labelled.example import END, Example
from llama_bench.measure.text import rows
from llama_bench.specs import ExamplesSpec
from llama_bench.templates import Template
from llama_bench.text_files import kind

_BLANK_LINE = re.compile(r"\n\s*\n")


def examples(
    spec: ExamplesSpec, key: str, paths: list[Path], left_out: Counter
) -> tuple[list[Example], str]:
    """One of each row that has all of its columns, and what ends a written answer. `key` is the
    fine-tuning's in the configuration; reasons and counts of other rows are added to `left_out`.

    Raises UserError naming template, file and column.
    """
    prompt = Template(spec.prompt, f"{key}.prompt")
    answer = Template(spec.answer, f"{key}.answer")
    columns = list(dict.fromkeys([*prompt.columns, *answer.columns, spec.document or ""]))
    found = []
    for row in _rows(spec, key, paths, [column for column in columns if column]):
        asked, given = _joined(prompt.fill(row), answer.fill(row), written=not spec.choices)
        if not asked.strip() or not given.strip():
            left_out["an empty prompt or answer"] += 1
        elif not _is_text(asked + given):
            left_out["half of a surrogate pair, which is no text"] += 1
        else:
            found.append(Example(_document(row, spec.document, asked), asked, given))
    return (found, END) if spec.choices else _ended(found, left_out)


def _rows(spec: ExamplesSpec, key: str, paths: list[Path], columns: list[str]) -> Iterator:
    setting = f"{key}.prompt, answer and document to those there are"
    if spec.corpus.source == "hub":
        from llama_bench.measure.text import hub

        yield from hub.rows(spec.corpus, paths, columns, f"{key}.examples", setting)
        return
    for path in paths:
        if kind(path) not in rows.KINDS:
            raise UserError(f"{key}.examples: {path} has no columns; give .jsonl or .parquet files")
        for _, row in rows.of_file(path, columns, setting):
            yield row


def _joined(prompt: str, answer: str, written: bool) -> tuple[str, str]:
    bare = prompt.rstrip(" \t")
    given = (prompt[len(bare) :] + answer).rstrip()
    blanks = given[: len(given) - len(given.lstrip())]
    cut = blanks.rfind(END) + 1 if written else 0
    return bare + given[:cut], given[cut:]


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _document(row: rows.Row, column: str | None, prompt: str) -> str:
    """The row's; without one, its prompt stands for it, by a digest."""
    named = row[column] if column else None
    if named is not None and str(named).strip():
        return str(named)
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def _ended(found: list[Example], left_out: Counter) -> tuple[list[Example], str]:
    """Written answers with their end, at which generation stops and which none may hold."""
    end = 2 * END if any(END in each.answer.strip() for each in found) else END
    kept = [each for each in found if not _BLANK_LINE.search(each.answer.strip())]
    if len(kept) < len(found):
        left_out["an answer with a blank line, which would end it"] += len(found) - len(kept)
    return [each._replace(answer=each.answer + end) for each in kept], end
