"""The held-out tasks: true questions, written the same each time, at home in lm-eval anywhere."""

import ast
import json
import random
import re
import shutil
import sys
import sysconfig
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llama_bench.fields import UserError
from llama_bench.measure import tasks
from llama_bench.measure.questions import passages, questions
from llama_bench.measure.questions.broken_code import BREAKS, broken_code, parses
from llama_bench.measure.questions.broken_prose import CONSTRUCTIONS
from llama_bench.sections.evaluate import HELD_OUT_TASKS
from llama_bench.specs import TasksSpec

MODULES = (
    "argparse", "ast", "bdb", "calendar", "cmd", "configparser", "copy", "csv", "difflib", "dis",
    "doctest", "enum", "fractions", "ftplib", "inspect", "ipaddress", "mailbox", "pdb", "tarfile",
    "textwrap", "tokenize", "unittest/case", "unittest/loader", "unittest/main", "zipapp",
    "json/decoder", "json/encoder", "json/scanner",
)  # fmt: skip


def stdlib():
    root = Path(sysconfig.get_paths()["stdlib"])
    return {f"{name}.py": (root / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}


def in_word(character):
    return character == "_" or character.isalnum()


def silent(done, of, note=""):
    assert 0 <= done <= of


def write(folder, documents, items=60, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"name": list(documents), "text": list(documents.values())})
    pq.write_table(table, folder / "held_out.parquet")
    spec = TasksSpec(data="corpus-12345678", items=items, seed=seed)
    result = tasks.run(spec, folder / "out", [folder / "record.json"], silent)
    rows = {
        name: [json.loads(line) for line in (folder / f"out/tasks/{name}.jsonl").open()]
        for name in result["tasks"]
    }
    return result, rows


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    return folder, stdlib(), *write(folder, stdlib())


def contents(folder):
    return {p.name: p.read_bytes() for p in (folder / "out/tasks").iterdir() if p.is_file()}


def test_python_gives_all_tasks(written):
    _, _, result, rows = written
    assert tuple(result["tasks"]) == HELD_OUT_TASKS
    assert result["left_out"] == {}
    for name, about in result["tasks"].items():
        assert about["items"] == len(rows[name]) == 60
        assert about["higher_is_better"] == (name != "heldout_bits_per_byte")


def test_questions_follow_from_documents_and_seed_alone(written, tmp_path):
    folder, documents, _, _ = written
    backwards = dict(sorted(documents.items(), reverse=True))
    write(tmp_path / "again", backwards)
    assert contents(tmp_path / "again") == contents(folder)
    write(tmp_path / "other", documents, seed=1)
    assert contents(tmp_path / "other") != contents(folder)


def test_no_question_outgrows_a_small_window(written):
    for name, rows in written[3].items():
        for row in rows:
            longest = max(row.get("choices") or [row.get("target", row.get("text"))], key=len)
            size = len((row.get("context", "") + longest).encode())
            assert size <= 512, (name, row)


def test_documents_take_turns(written):
    for name, rows in written[3].items():
        counts = Counter(row["document"] for row in rows)
        assert len(counts) > (2 if name == "heldout_part" else len(MODULES) // 2), name
        if name != "heldout_part":  # few documents lie in a folder
            assert max(counts.values()) <= 6, name


def test_pieces_are_parts_of_documents_without_overlap():
    text = stdlib()["argparse.py"]
    found = [row["text"] for row in questions.pieces(text, random.Random(0))]
    places = sorted((text.index(piece), len(piece)) for piece in found if text.count(piece) == 1)
    assert len(found) > 100
    assert all(a + n <= b for (a, n), (b, _) in pairwise(places))
    assert sum(map(len, found)) > 0.98 * len(text)


def test_pieces_of_one_endless_line_are_bounded():
    found = [row["text"] for row in questions.pieces("ü" * 5000, random.Random(0))]
    assert sum(map(len, found)) == 5000
    assert all(len(piece.encode()) <= questions.PIECE_BYTES for piece in found)


def test_next_line_is_true_and_the_others_are_not(written):
    _, documents, result, rows = written
    for row in rows["heldout_next_line"]:
        gold = row["choices"][row["label"]]
        assert row["context"] + gold + "\n" in documents[row["document"]]
        lines = set(documents[row["document"]].split("\n"))
        stripped = [choice.strip() for choice in row["choices"]]
        assert len(set(stripped)) == 4 and all(stripped)
        assert set(row["choices"]) <= lines
        near = {line.strip() for line in row["context"].split("\n")}
        assert not near & set(stripped[: row["label"]] + stripped[row["label"] + 1 :])
    labels = Counter(row["label"] for row in rows["heldout_next_line"])
    assert set(labels) == {0, 1, 2, 3}
    assert result["tasks"]["heldout_next_line"]["chance"] == 0.25


def test_next_line_cannot_be_told_by_its_indentation(written):
    def depth(line):
        return len(line) - len(line.lstrip())

    rows = written[3]["heldout_next_line"]
    for extreme in (min, max):
        alone = 0
        for row in rows:
            depths = [depth(choice) for choice in row["choices"]]
            gold = depths[row["label"]]
            alone += gold == extreme(depths) and depths.count(gold) == 1
        assert alone < 0.25 * len(rows)


def test_missing_word_is_the_documents_and_all_four_were_seen(written):
    _, documents, _, rows = written
    for row in rows["heldout_cloze"]:
        gold = row["choices"][row["label"]]
        assert row["context"] + gold in documents[row["document"]]
        words = [re.match(r" (\w+)", choice).group(1) for choice in row["choices"]]
        assert len(set(words)) == 4
        rests = {c[1 + len(w) :] for c, w in zip(row["choices"], words, strict=True)}
        assert len(rests) == 1
        assert all(re.search(rf"(?<!\w){word}(?!\w)", row["context"]) for word in words)
    assert {row["label"] for row in rows["heldout_cloze"]} == {0, 1, 2, 3}


def test_one_word_is_wrong_and_the_other_line_was_written(written):
    _, documents, _, rows = written
    made = Counter(row["construction"] for row in rows["heldout_grammar"])
    assert len(made) >= 3 and set(made) <= set(CONSTRUCTIONS)
    for row in rows["heldout_grammar"]:
        good, bad = row["choices"][row["label"]], row["choices"][1 - row["label"]]
        assert good in documents[row["document"]] and bad not in documents[row["document"]]
        changed = sum((Counter(good.split()) - Counter(bad.split())).values())
        assert changed == (0 if row["construction"] == "order" else 1), row


@pytest.mark.parametrize(
    "construction, good, bad",
    [
        ("article", "this is an example of a rule", "this is a example of a rule"),
        ("agreement", "the end of it is near", "the end of it are near"),
        ("order", "the end of the line is here", "the end the of line is here"),
        ("verb", "that will change a lot of it", "that will changes a lot of it"),
        ("pronoun", "he gave a book to them here", "he gave a book to they here"),
    ],
)
def test_every_way_to_break_prose_does_what_it_says(construction, good, bad):
    pattern, replace = CONSTRUCTIONS[construction]
    assert bad in {
        good[: m.start()] + replace(m) + good[m.end() :] for m in re.finditer(pattern, good)
    }


def test_exceptions_to_the_rule_of_articles_are_left_alone():
    pattern, replace = CONSTRUCTIONS["article"]
    for phrase in ("an hour", "a one", "an unimportant", "a European"):
        assert all(replace(m) == m.group() for m in re.finditer(pattern, phrase)), phrase


def test_parts_are_told_by_folder_or_file_and_as_often_as_each_other(written, tmp_path):
    _, documents, result, rows = written
    for row in rows["heldout_part"]:
        assert row["document"].startswith(row["part"] + "/")
        assert row["choices"][row["label"]] == " " + row["part"]
        excerpt = row["context"].removesuffix("\n\nThis text is from:")
        assert excerpt in documents[row["document"]]
    counts = Counter(row["part"] for row in rows["heldout_part"])
    assert counts == {"json": 30, "unittest": 30}
    assert result["tasks"]["heldout_part"]["chance"] == 0.5
    pieces = [
        ("a.txt:1", "x"),
        ("a.txt:9", "y"),
        ("b.txt:1", "z"),
        ("b.txt:2", "w"),
        ("c.txt", "v"),
    ]
    assert passages.parts(pieces) == {"x": "a", "y": "a", "z": "b", "w": "b"}
    assert passages.parts(pieces[:2]) == {}


def test_no_choice_begins_another(tmp_path):
    """It could never be less likely than the one that it begins, whatever a model knows."""
    documents = {name.replace("unittest/", "json_x/"): text for name, text in stdlib().items()}
    _, rows = write(tmp_path, documents, items=300)
    choices = [(name, row["choices"]) for name in rows for row in rows[name] if "choices" in row]
    assert len(choices) > 900
    for name, each in choices:
        assert not any(b.startswith(a) for a, b in pairwise(sorted(each))), name
    assert {tuple(each) for name, each in choices if name == "heldout_part"} == {
        (" json\n", " json_x\n")
    }


def test_answers_stand_once_in_their_passage(written):
    rows = written[3]["heldout_question"]
    assert {row["construction"] for row in rows} == {"assignment", "following"}
    for row in rows:
        passage, _, question = row["context"].rpartition("\n\nQ: ")
        if row["construction"] == "assignment":
            cue = re.fullmatch(r"What is (\w+) set to\?\nA:", question).group(1)
            assert re.findall(rf"(?<!\w){cue} = (.*)", passage) == [row["target"]]
        else:
            cue = re.fullmatch(r'Which word follows "(.+)"\?\nA:', question).group(1)
            assert re.findall(rf"(?<!\w){cue} (\w+)", passage) == [row["target"]]


def test_valid_code_parses_and_broken_code_does_not(written):
    rows = written[3]["heldout_valid_code"]
    for row in rows:
        good, bad = row["choices"][row["label"]], row["choices"][1 - row["label"]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(good)
            with pytest.raises(SyntaxError):
                ast.parse(bad)
        assert abs(len(good) - len(bad)) <= 6  # broken in one place, and not rewritten
    assert {row["label"] for row in rows} == {0, 1}
    assert len({row["construction"] for row in rows}) >= 5
    assert {row["construction"] for row in rows} <= set(BREAKS)


@pytest.mark.parametrize("kind", BREAKS)
def test_every_way_to_break_code_finds_a_place(kind):
    code = 'def area(width, height):\n    if width == "wide":\n        return [width * 2, height]\n'
    rng = random.Random(1)
    candidates = [c for _ in range(20) for c in BREAKS[kind](code, rng)]
    assert candidates and any(not parses(candidate) for candidate in candidates)


def test_identifier_occurred_before_and_nothing_else_follows(written):
    _, documents, _, rows = written
    for row in rows["heldout_identifier"]:
        context, target = row["context"], row["target"]
        assert context + target in documents[row["document"]]
        joint = "._" if row["construction"] == "part" else " "
        assert target[0] in joint and context[-1].isalnum() and target[1:].isalnum()
        first = re.search(r"[\w.]+$", context).group()
        followers = re.findall(rf"(?<![\w.]){re.escape(first)}{re.escape(target[0])}(\w+)", context)
        assert followers and set(followers) == {target[1:]}
    assert {row["construction"] for row in rows["heldout_identifier"]} == {"part", "word"}


def test_line_end_ends_its_line_and_begins_after_a_word(written):
    _, documents, _, rows = written
    for row in rows["heldout_line_end"]:
        assert row["context"] + row["target"] + "\n" in documents[row["document"]] + "\n"
        assert row["context"][-1].isalnum() and not in_word(row["target"][0])
        assert "\n" not in row["target"] and row["target"] == row["target"].rstrip()
        assert len(row["target"].encode()) <= questions.END_BYTES


@pytest.mark.parametrize("name", ["heldout_identifier", "heldout_question", "heldout_line_end"])
def test_chance_is_what_the_best_constant_answer_gets(written, name):
    _, _, result, rows = written
    answers = [row["target"] for row in rows[name]]
    best = max(sum(answer == constant for answer in answers) for constant in set(answers))
    assert result["tasks"][name]["chance"] == best / len(answers) <= 0.1


def test_lm_eval_takes_the_folder_wherever_it_lies(written, tmp_path):
    from lm_eval.tasks import TaskManager

    folder, _, result, rows = written
    assert str(folder).encode() not in b"".join(contents(folder).values())
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder / "out/tasks", moved)
    manager = TaskManager(include_path=str(moved), include_defaults=False)
    assert set(manager.all_tasks) == set(HELD_OUT_TASKS)
    loaded = manager.load(list(HELD_OUT_TASKS))["tasks"]
    for name, task in loaded.items():
        assert len(task.eval_docs) == len(rows[name])
        assert task.config.metadata["chance"] == result["tasks"][name]["chance"]
        doc = task.eval_docs[3]
        if "context" in doc:  # no template may touch the text: its last newline counts
            assert task.doc_to_text(doc) == rows[name][3]["context"]
        task.set_fewshot_seed(0)
        task.set_config("num_fewshot", 0)
        task.build_all_requests(limit=5)
        assert task.instances


def test_no_answer_is_swallowed_by_its_context(written, prepared):
    """lm-eval's own adapter counts tokens: an answer that adds none ends its run."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(prepared.parent / "tokenizer/tokenizer.json"))
    for name, rows in written[3].items():
        for row in rows:
            for answer in row.get("choices") or [row.get("target", row.get("text"))]:
                # blanks at the end of a context go over to the answer there
                context = row.get("context", "").rstrip()
                whole = tokenizer.encode(row.get("context", "") + answer).ids
                assert whole[: len(tokenizer.encode(context).ids)] == tokenizer.encode(context).ids
                assert len(whole) > len(tokenizer.encode(context).ids), (name, row)


def test_prose_gives_what_it_allows(shared, tmp_path):
    books = sorted(shared("corpora", "gutenberg17").glob("*.txt"))
    documents = {book.name: book.read_text(encoding="utf-8")[20_000:120_000] for book in books}
    result, rows = write(tmp_path, documents, items=40)
    assert set(result["tasks"]) == set(HELD_OUT_TASKS) - {"heldout_valid_code", "heldout_part"}
    assert "no Python" in result["left_out"]["heldout_valid_code"]
    assert "no folders" in result["left_out"]["heldout_part"]
    for row in rows["heldout_next_line"]:
        gold = row["choices"][row["label"]]
        assert row["context"] + gold + "\n" in documents[row["document"]]


def test_one_line_documents_leave_tasks_out_with_reasons(tmp_path):
    rng = random.Random(0)
    words = ["market", "garden", "yellow", "window", "little", "under", "over", "the"]
    documents = {str(n): " ".join(rng.sample(words, 7)) + "." for n in range(80)}
    result, _ = write(tmp_path, documents)
    assert "heldout_bits_per_byte" in result["tasks"]
    assert "too few lines" in result["left_out"]["heldout_next_line"]
    assert set(result["tasks"]) | set(result["left_out"]) == set(HELD_OUT_TASKS)
    files = {path.stem for path in (tmp_path / "out/tasks").glob("*.yaml")}
    assert files == set(result["tasks"])


def test_a_task_that_no_longer_fits_leaves_no_files(tmp_path):
    write(tmp_path, stdlib())
    write(tmp_path, {"one.txt": "a line of prose and nothing more to see\n" * 3})
    assert not list((tmp_path / "out/tasks").glob("*.yaml"))


def test_prose_is_never_taken_for_code():
    text = "for the king\nwhile we may (he said):\n    if only it were so\n" * 20
    assert list(broken_code(text, random.Random(0))) == []


def test_the_grammar_that_judges_code_is_part_of_what_is_asked(tmp_path, monkeypatch):
    """Under another Python the same study asks for other questions, and neither writes the
    other's."""
    spec = TasksSpec(data="corpus-12345678", items=5)
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    later = TasksSpec(data="corpus-12345678", items=5)
    assert later.grammar == "3.99" and later.id != spec.id
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    assert TasksSpec(data="corpus-12345678", items=5).canonical() == (
        '{"data":"corpus-12345678","items":5,"recipe":3,"seed":0}'
    )
    with pytest.raises(UserError, match=r"Python 3\.99, and this is another; run the study"):
        tasks.run(later, tmp_path, [tmp_path / "record.json"], silent)


def test_missing_held_out_text_is_said_by_name(tmp_path):
    spec = TasksSpec(data="corpus-12345678", items=5)
    with pytest.raises(UserError, match=r"held_out\.parquet"):
        tasks.run(spec, tmp_path, [tmp_path / "record.json"], silent)
