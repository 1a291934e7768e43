"""Cleaning: what each step does to texts whose right answer is known, and its counts."""

import ast

import numpy as np
import pytest
from preparing import prose

from llama_bench.measure.text.cleaning import (
    COUNTS,
    cleaned,
    has_fitting_length,
    has_usual_characters,
    report,
    unicode,
    whitespace,
)
from llama_bench.measure.text.corpus import documents
from llama_bench.specs import Corpus

PROSE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the "
    "age of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the "
    "season of Light, it was the season of Darkness, it was the spring of hope, it was the winter "
    "of despair.\n"
)


@pytest.fixture(scope="module")
def code():
    return [d.text for d in documents(Corpus(source="python-stdlib"), []) if d]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("a\u200bb\ufeffc\u00add\x00e\x1bf\x7f", "abcdef"),
        ("tab\tfeed\x0c\r\n", "tab\tfeed\x0c\r\n"),
        ("می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
        ("bad \ufffd", "bad "),
    ],
)
def test_unicode(given, left):
    assert unicode(given.encode()).decode() == left
    assert unicode(unicode(given.encode())) == unicode(given.encode())


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("\n\n  if x:  \n\ty \t\n", "  if x:\n\ty\n"),
        ("a\n\n\n\n\n\nb\n\n\n", "a\n\n\nb\n"),
        ("a\n   \n \n\t\n\nb", "a\n\n\nb"),
        ("x = 1 + \\ \n", "x = 1 + \\ \n"),
    ],
)
def test_whitespace(given, left):
    assert whitespace(given.encode()).decode() == left
    assert whitespace(whitespace(given.encode())) == whitespace(given.encode())


def without_strings(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            node.value = ""
    return ast.dump(tree)


def test_whitespace_does_not_change_what_python_means(code):
    checked = 0
    for text in code[::8]:
        new = whitespace(text.encode()).decode()
        if new != text:
            try:
                meaning = without_strings(text)
            except SyntaxError:  # the library's own tests hold some
                continue
            assert without_strings(new) == meaning
            checked += 1
    assert checked > 5


def test_length():
    assert not has_fitting_length(b"word " * 49)
    assert has_fitting_length(b"word " * 50)
    assert has_fitting_length(b"word " * 100_000)
    assert not has_fitting_length(b"word " * 100_001)


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        (PROSE, True),
        (5 * "... " + PROSE, True),
        (9 * "... " + PROSE, False),
        ("0x1f 17 2 99 1024 " * 20, False),
        ("a b c d e f " * 20, False),
        ("antidisestablishmentarianism " * 20, False),
        ("Lorem ipsum dolor sit amet\n" + PROSE, False),
        ("\n".join(f"- item number {name}" for name in "abcdefghijkl"), False),
        ("\n".join(["- item number seven"] * 8 + ["and another line"] * 2), True),
        ("\n".join([PROSE.strip() + "..."] * 3 + [PROSE.strip()] * 7), True),
        ("\n".join([PROSE.strip() + "…"] * 4 + [PROSE.strip()] * 6), False),
    ],
)
def test_characters(text, usual):
    assert has_usual_characters(text.encode()) is usual


def test_the_rules_leave_most_code_and_prose(code):
    """Their thresholds are those of web text; a rule that throws out all code would be no use."""
    sample = [text.encode() for text in code if len(text) > 2_000][::10]
    assert np.mean([has_usual_characters(text) for text in sample]) > 0.9
    assert np.mean([has_fitting_length(text) for text in sample]) > 0.95
    assert all(has_usual_characters(text.encode()) for text in prose(10))


def test_steps_are_counted_in_their_order():
    texts = [b"one \n", b"one\n", b"two", "\u200b".encode(), b"two\x00"]
    steps = ("unicode", "whitespace", "exact_duplicates", "near_duplicates")
    counts = np.zeros((len(steps), len(COUNTS)), dtype=np.int64)
    assert cleaned(steps, texts, counts) == [b"one\n"]
    assert [tuple(row.values()) for row in report(steps, counts)] == [
        ("unicode", 1, 4, 1, 4, 15),
        ("whitespace", 0, 1, 1, 4, 14),
        ("exact_duplicates", 2, 7, 0, 2, 7),
        ("near_duplicates", 1, 3, 0, 1, 4),
    ]
    assert cleaned((), texts, counts[:0]) == texts
