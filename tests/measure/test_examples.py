"""Labelled examples: true, apart by document, the same bytes again, and at home in lm-eval."""

import ast
import json
import random
import shutil
import sysconfig
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from llama_bench import sources
from llama_bench.fields import UserError
from llama_bench.measure import examples, job, tasks
from llama_bench.measure.labelled.docstrings import ANSWER_BYTES
from llama_bench.measure.labelled.from_parts import EXCERPT_BYTES
from llama_bench.records import read
from llama_bench.specs import Corpus, ExamplesSpec, TasksSpec
from llama_bench.templates import Template

FOLDERS = ("email", "encodings", "json", "unittest")
TOPMOST = ("argparse", "ast", "calendar", "copy", "csv", "enum", "inspect", "ipaddress", "pdb")
QUESTION = "\n\nThis text is from:"


def silent(done, of, note=""):
    assert 0 <= done <= of


def stdlib():
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for folder in FOLDERS for path in (root / folder).glob("*.py")]
    paths += [root / f"{name}.py" for name in TOPMOST]
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in paths}
    return {name: text for name, text in texts.items() if text.strip()}


def prepare(folder, documents):
    """What `prepare` leaves of its test documents."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"name": list(documents), "text": list(documents.values())})
    pq.write_table(table, folder / "held_out.parquet")
    return folder / "record.json"


class Written:
    """The files of one run, and what its record says."""

    def __init__(self, folder, inputs, **asked):
        shares = {"items": 400, "validation": 0.15, "test": 0.25}
        task = asked.pop("task", "finetune_mine")
        self.spec = ExamplesSpec(task=task, data="corpus-12345678", **{**shares, **asked})
        self.folder, self.documents = folder, inputs[0]
        folder.mkdir(parents=True, exist_ok=True)
        self.result = examples.run(self.spec, folder, inputs, silent)
        self.train, self.validation = (
            pq.read_table(folder / f"{part}.parquet").to_pylist()
            for part in ("train", "validation")
        )
        lines = (folder / f"tasks/{task}.jsonl").read_text().splitlines()
        self.test = [json.loads(line) for line in lines]
        self.unseen = pq.read_table(folder / "unseen.parquet").to_pylist()

    @property
    def parts(self):
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def contents(self):
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}


def of_rows(folder, rows, **asked):
    """From a JSONL file of rows; a prepare run of two documents stands beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = Corpus(source="files", files=("0" * 16,), text_key="text")
    given = {"prompt": "{text}\nIs it:", "answer": " {label}", "choices": True, **asked}
    record = prepare(folder / "prepare", {"a.txt": "one", "b.txt": "two"})
    return Written(folder / "out", [record, path], corpus=corpus, **given)


def reviews(count=200, labels=("good", "bad")):
    rng = random.Random(0)
    words = [f"word{n}" for n in range(400)]
    return [
        {"text": " ".join(rng.sample(words, 8)), "label": labels[n % len(labels)], "film": n // 4}
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def documents():
    return stdlib()


@pytest.fixture(scope="module")
def part(tmp_path_factory, documents):
    folder = tmp_path_factory.mktemp("part")
    record = prepare(folder / "prepare", documents)
    return Written(folder / "out", [record], source="part", task="finetune_part")


@pytest.fixture(scope="module")
def docstring(tmp_path_factory, documents):
    folder = tmp_path_factory.mktemp("docstring")
    record = prepare(folder / "prepare", documents)
    return Written(folder / "out", [record], source="docstring", task="finetune_docstring")


def assert_apart(written):
    """No document and no prompt is in two parts, and nothing trained on is among the unseen."""
    names, prompts = {}, {}
    for part_, rows in written.parts.items():
        for row in rows:
            assert names.setdefault(row["document"], part_) == part_
            prompt = row.get("prompt", row.get("context"))
            assert prompts.setdefault(prompt, part_) == part_
    assert set(names.values()) == {"train", "validation", "test"}
    trained = {name for name, part_ in names.items() if part_ != "test"}
    assert not trained & {row["name"] for row in written.unseen}


def assert_counted(written):
    """The record says what the files hold."""
    result, labels = written.result, written.result["choices"]
    assert result["examples"] == {part_: len(rows) for part_, rows in written.parts.items()}
    assert sum(result["examples"].values()) <= written.spec.items
    for part_, rows in written.parts.items():
        assert result["documents"][part_] == len({row["document"] for row in rows})
        if labels:
            given = Counter(labels[row["label"]] for row in rows)
            assert result["label_counts"][part_] == {label: given[label] for label in labels}
    for row in written.train + written.validation:
        assert row["label"] == (labels.index(row["answer"]) if labels else None)
    answers = [row["answer"].encode() for row in written.train]
    assert result["answer_bytes"]["train"] == sum(map(len, answers))


def test_excerpts_are_from_the_part_they_are_labelled_with(part, documents):
    assert part.result["choices"] == [f" {name}" for name in FOLDERS]
    for row in part.train + part.validation:
        excerpt, mark, rest = row["prompt"].rpartition(QUESTION)
        assert mark and not rest and len(excerpt.encode()) <= EXCERPT_BYTES
        assert excerpt in documents[row["document"]]
        assert row["document"].startswith(row["answer"].strip() + "/")
    for row in part.test:
        assert row["choices"] == part.result["choices"]
        assert row["document"].startswith(row["choices"][row["label"]].strip() + "/")
    assert part.result["chance"] == max(
        0.25, max(Counter(row["label"] for row in part.test).values()) / len(part.test)
    )


def test_docstrings_are_what_python_reads(docstring, documents):
    assert docstring.result["choices"] is docstring.result["label_counts"] is None
    summaries = {}
    for name in {row["document"] for rows in docstring.parts.values() for row in rows}:
        for node in ast.walk(ast.parse(documents[name])):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                said = (ast.get_docstring(node) or "").split("\n")[0].strip()
                summaries.setdefault((name, node.name), set()).add(said)
    for row in docstring.train + docstring.validation:
        assert row["answer"].count("\n") == 1 and row["answer"].endswith("\n")
    for rows in docstring.parts.values():
        for row in rows:
            prompt = row.get("prompt", row.get("context"))
            answer = row.get("answer", row.get("target")).removesuffix("\n")
            assert ANSWER_BYTES[0] <= len(answer.encode()) <= ANSWER_BYTES[1]
            (node,) = ast.parse(f'{prompt}"""').body  # the prompt ends where the quotes open
            while isinstance(node.body[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
                node = node.body[0]
            assert answer in summaries[row["document"], node.name]


@pytest.mark.parametrize("source", ["part", "docstring"])
def test_documents_are_apart_and_counted(source, request):
    written = request.getfixturevalue(source)
    assert_apart(written)
    assert_counted(written)
    shares = {part_: len(rows) for part_, rows in written.parts.items()}
    assert shares["test"] == pytest.approx(0.25 * sum(shares.values()), rel=0.3)
    assert shares["validation"] == pytest.approx(0.15 * sum(shares.values()), rel=0.3)
    unseen = {row["name"]: row["text"] for row in written.unseen}
    assert {row["document"] for row in written.test} <= set(unseen)


def test_what_one_task_trains_on_no_other_tests(documents, tmp_path):
    """Nor a near copy of it, which lies in another folder; however many items are asked."""
    copy = {"json/tables.py": documents["csv.py"].replace("DictReader", "Reader")}
    record = prepare(tmp_path / "prepare", documents | copy)
    parts = {}
    for seed in range(2):
        for source, items in {"part": 400, "docstring": 300}.items():
            folder = tmp_path / f"{source}{seed}"
            found = Written(folder, [record], source=source, seed=seed, items=items)
            assert_apart(found)
            for part_, rows in found.parts.items():
                for name in {row["document"].replace("json/tables", "csv") for row in rows}:
                    parts.setdefault((seed, name), []).append(part_)
    both = {of: each for of, each in parts.items() if len(each) == 2}
    assert len(both) > 40 and (0, "csv.py") in both
    assert all(part_ == other for part_, other in both.values())
    assert {part_ for part_, _ in both.values()} == {"train", "validation", "test"}


@pytest.mark.parametrize("source", ["part", "docstring"])
def test_bytes_follow_from_content_and_seed_alone(source, request, documents, tmp_path):
    written = request.getfixturevalue(source)
    record = prepare(tmp_path / "prepare", dict(sorted(documents.items(), reverse=True)))
    asked = {"source": source, "task": f"finetune_{source}"}
    assert Written(tmp_path / "again", [record], **asked).contents == written.contents
    assert Written(tmp_path / "other", [record], seed=1, **asked).contents != written.contents


def test_held_out_tasks_apart_from_examples_ask_about_other_documents(part, docstring, tmp_path):
    """And are the same questions."""
    plain = TasksSpec(data=part.spec.data, items=300)
    apart = plain.model_copy(update={"apart_from": (docstring.spec.id, part.spec.id)})
    inputs = [part.documents, docstring.folder / "record.json", part.folder / "record.json"]
    every = tasks.run(plain, tmp_path / "plain", inputs[:1], silent)["tasks"]
    told = tasks.run(apart, tmp_path / "apart", inputs, silent)
    learned = {
        row["document"]
        for written in (part, docstring)
        for row in written.train + written.validation
    }
    unseen = [{row["name"] for row in written.unseen} for written in (part, docstring)]
    unseen = set.intersection(*unseen)  # near copies of what was learned from are none either
    assert not unseen & learned
    for name in every:
        rows, kept = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
            for path in (tmp_path / f"{way}/tasks/{name}.jsonl" for way in ("plain", "apart"))
        )
        wanted = [row for row in rows if row["document"] in unseen]
        assert len(wanted) < len(rows)
        assert kept == (wanted if name in told["tasks"] else [])
        if name not in told["tasks"]:
            assert len(wanted) < 20 and "fine-tuning" in told["left_out"][name]
    assert told["tasks"]


def test_near_copies_are_never_apart(documents, tmp_path):
    """Nor is a document whose near copy was trained on called unseen."""
    text = documents["unittest/case.py"]
    copies = {f"unittest/copy{n}.py": text.replace("failureException", f"E{n}") for n in range(4)}
    record = prepare(tmp_path / "prepare", documents | copies)
    parts = set()
    for seed in range(4):
        found = Written(tmp_path / str(seed), [record], source="part", seed=seed)
        kin = {"unittest/case.py", *copies}
        inside = {
            part_ for part_, rows in found.parts.items() for row in rows if row["document"] in kin
        }
        assert len(inside) == 1
        unseen = kin & {row["name"] for row in found.unseen}
        assert unseen == (kin if inside == {"test"} else set())
        parts |= inside
    assert parts


def test_a_fraction_of_the_training_rows_is_a_random_part(tmp_path):
    """Rows lie in random order: of labels, of documents, and of how many a document has."""
    rows = [row for row in reviews(800) if row["film"] % 5 or row["label"] == "good"]
    found = of_rows(tmp_path, rows, items=600, document="film")
    labels = [row["label"] for row in found.train]
    for share in (16, 4):
        first = labels[: -(-len(labels) // share)]
        assert abs(sum(first) / len(first) - sum(labels) / len(labels)) < 0.2
    places = [place for place, row in enumerate(found.train) if int(row["document"]) % 5 == 0]
    assert sum(places) / len(places) == pytest.approx(len(labels) / 2, rel=0.2)


def test_movie_reviews(shared, tmp_path):
    """Pang and Lee's sentences; the same bytes whatever the order of rows and the kind of file."""
    path = shared("corpora", "mr_rt_polarity", "rt_polarity.jsonl")
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    asked = {"items": 1200, "prompt": "Review: {text}\nPositive (1) or negative (0): "}
    asked |= {"answer": "{label}"}
    found = of_rows(tmp_path / "jsonl", rows, **asked)
    assert found.result["examples"] == {"train": 720, "validation": 180, "test": 300}
    assert found.result["choices"] == [" 0", " 1"]
    assert found.result["chance"] < 0.6
    assert_apart(found)
    assert_counted(found)
    truth = {f"Review: {row['text']}\nPositive (1) or negative (0):": row["label"] for row in rows}
    assert all(truth[row["prompt"]] == int(row["answer"]) for row in found.train)
    assert all(truth[row["context"]] == row["label"] for row in found.test)
    assert len(found.unseen) == 2
    random.Random(1).shuffle(rows)
    assert of_rows(tmp_path / "shuffled", rows, **asked).contents == found.contents
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    again = Written(
        tmp_path / "parquet",
        [found.documents, tmp_path / "rows.parquet"],
        corpus=found.spec.corpus,
        choices=True,
        **asked,
    )
    assert again.contents == found.contents


def test_translations(shared, tmp_path):
    """Multi30k: written answers, that end where generation stops."""
    path = shared("corpora", "multi30k", "val.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    german = {row["en"]: row["de"] for row in rows}
    asked = {"prompt": "English: {en}\nGerman:", "answer": " {de}", "choices": False}
    found = of_rows(tmp_path, rows, **asked)
    assert found.result["examples"] == {"train": 240, "validation": 60, "test": 100}
    assert found.result["metric"] == "exact_match" and found.result["chance"] < 0.05
    assert_apart(found)
    assert_counted(found)
    for row in found.train:
        english = row["prompt"].removeprefix("English: ").removesuffix("\nGerman:")
        assert row["answer"] == f" {german[english].strip()}\n"
    for row in found.test:
        english = row["context"].removeprefix("English: ").removesuffix("\nGerman:")
        assert row["target"] == german[english].strip()


def test_line_ends_before_a_written_answer_belong_to_its_prompt(shared, tmp_path):
    """Writing stops at a line's end: an answer that began with one would be empty."""
    path = shared("corpora", "multi30k", "val.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    german = {row["en"].strip(): row["de"].strip() for row in rows}
    for lead, kept in (("\n", ""), (" \n\n ", " ")):
        asked = {"prompt": "{en} ", "answer": f"{lead}{{de}}", "choices": False}
        found = of_rows(tmp_path / f"{len(lead)}", rows, **asked)
        assert_counted(found)
        for row in found.train:
            english = row["prompt"].strip()
            assert row["prompt"] == row["prompt"].strip() + (" \n" if not kept else "  \n\n")
            assert row["answer"] == f"{kept}{german[english]}\n"
        for row in found.test:
            assert row["context"].endswith("\n") and row["target"] == german[row["context"].strip()]
            assert row["answer"].split("\n")[0] == kept + row["target"]


@pytest.mark.parametrize("tail", ["0", "\nor so"])
def test_of_labels_one_of_which_begins_another_all_have_an_end(tmp_path, tail):
    """Also of labels of several lines; what names them does not show it."""
    rows = reviews(labels=("good", f"good{tail}", "bad"))
    found = of_rows(tmp_path, rows)
    labels = [" bad", " good", f" good{tail}"]
    assert found.result["choices"] == labels
    assert all(set(counts) == set(labels) for counts in found.result["label_counts"].values())
    end = "\n" * (1 + tail.count("\n"))
    for row in found.train + found.validation:
        assert row["answer"] == labels[row["label"]] + end
    for row in found.test:
        assert row["choices"] == [label + end for label in labels]
        for one in row["choices"]:
            assert not any(each.startswith(one) for each in row["choices"] if each != one)
    told = {f"{row['text']}\nIs it:": f" {row['label']}" for row in rows}
    assert all(told[row["context"]] == labels[row["label"]] for row in found.test)


def test_of_folders_one_of_which_begins_another_too(documents, tmp_path):
    renamed = {name.replace("encodings/", "email_x/"): text for name, text in documents.items()}
    record = prepare(tmp_path / "prepare", renamed)
    found = Written(tmp_path / "out", [record], source="part")
    names = ["email", "email_x", "json", "unittest"]
    assert found.result["choices"] == [f" {name}" for name in names]
    assert {row["answer"] for row in found.train} == {f" {name}\n" for name in names}
    assert ", ".join(names) in found.result["description"]


def test_a_local_dataset_gives_what_its_file_gives(tmp_path):
    rows = reviews()
    found = of_rows(tmp_path / "file", rows)
    folder = tmp_path / "dataset"
    folder.mkdir()
    shutil.copy(tmp_path / "file/rows.jsonl", folder / "train.jsonl")

    class Dataset:
        repo, revision, subset, split = str(folder), None, None, "train"

    corpus = sources.corpus(Dataset, "text", None)
    asked = {"corpus": corpus, "choices": True, "answer": " {label}"}
    prompt = "{text}\nIs it:"
    again = Written(tmp_path / "out", [found.documents, folder], prompt=prompt, **asked)
    assert again.contents == found.contents
    with pytest.raises(UserError, match=r"finetune\.mine\.examples: .*no column 'body'"):
        Written(tmp_path / "wrong", [found.documents, folder], prompt="{body}", **asked)


def test_lm_eval_scores_the_text_that_is_trained_on(part, docstring, tmp_path):
    """The folders loaded together, moved elsewhere, and asked for their requests."""
    from lm_eval.tasks import TaskManager

    folders = {"finetune_part": part, "finetune_docstring": docstring}
    for name, written in folders.items():
        shutil.copytree(written.folder / "tasks", tmp_path / name)
        assert str(written.folder).encode() not in b"".join(written.contents.values())
    paths = [str(tmp_path / name) for name in folders]
    manager = TaskManager(include_path=paths, include_defaults=False)
    assert set(manager.all_tasks) == set(folders)
    tasks = manager.load(list(folders))["tasks"]
    for name, task in tasks.items():
        written = folders[name]
        assert len(task.eval_docs) == len(written.test)
        assert task.config.metadata["chance"] == written.result["chance"]
        task.set_fewshot_seed(0)
        task.set_config("num_fewshot", 0)
        task.build_all_requests()
    asked = {}
    for request in tasks["finetune_part"].instances:
        asked.setdefault(request.doc_id, []).append(request.arguments)
    for number, row in enumerate(part.test):
        assert asked[number] == [(row["context"], label) for label in part.result["choices"]]
    for request, row in zip(tasks["finetune_docstring"].instances, docstring.test, strict=True):
        prompt, settings = request.arguments
        longest = max(len(each["answer"].encode()) for each in docstring.train)
        assert prompt == row["context"]
        assert settings["until"] == ["\n"] and settings["max_gen_toks"] >= longest


@pytest.mark.parametrize("source", ["part", "docstring"])
def test_examples_fit_a_small_window_and_no_answer_is_swallowed(source, request, prepared):
    from tokenizers import Tokenizer

    written = request.getfixturevalue(source)
    tokenizer = Tokenizer.from_file(str(prepared.parent / "tokenizer/tokenizer.json"))
    for row in written.train + written.validation:
        prompt = tokenizer.encode(row["prompt"]).ids
        whole = tokenizer.encode(row["prompt"] + row["answer"]).ids
        assert whole[: len(prompt)] == prompt and len(prompt) < len(whole) < 256


def test_answers_of_several_lines_end_with_a_blank_one(tmp_path):
    rows = [{**row, "label": f"one {n}\ntwo"} for n, row in enumerate(reviews(100))]
    rows[3]["label"] = "one\n \ntwo"
    found = of_rows(tmp_path, rows, choices=False)
    assert found.result["left_out"] == {"an answer with a blank line, which would end it": 1}
    assert all(row["answer"].endswith("\ntwo\n\n") for row in found.train)
    assert all(row["target"].endswith("\ntwo") for row in found.test)
    written = (found.folder / "tasks/finetune_mine.yaml").read_text()
    settings = yaml.safe_load(written.replace("!function", ""))["generation_kwargs"]
    assert settings["until"] == ["\n\n"]


def test_what_columns_hold_is_text_whatever_it_looks_like():
    row = {"text": "a {label} and {{b}} %s $x", "n": 3, "label": True, "none": None}
    assert Template("{{{text}}} {n}", "key").fill(row) == "{a {label} and {{b}} %s $x} 3"
    assert Template("{none} {n}", "key").fill(row) == ""
    assert Template("{x}", "key").fill({"x": float("nan")}) == ""
    assert Template("{n} and {n}", "key").columns == ["n"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{text", r"finetune\.mine\.prompt: .*brace"),
        ("{text} }", r"finetune\.mine\.prompt: .*brace"),
        ("no column", r"finetune\.mine\.prompt: 'no column' names no column"),
        ("{}", r"finetune\.mine\.prompt: .*names no column"),
        ("{text:>9}", r"finetune\.mine\.prompt: .*format"),
        ("{text!r}", r"finetune\.mine\.prompt: .*format"),
        ("{txt}", r"rows\.jsonl: line 1 has no column 'txt' \(columns: text, label, film\)"),
        ("{list}", r"finetune\.mine\.prompt: column 'list' holds a list"),
    ],
)
def test_a_template_that_cannot_be_filled_is_named(tmp_path, prompt, message):
    rows = reviews()
    if prompt == "{list}":
        rows = [{**row, "list": [1]} for row in rows]
    with pytest.raises(UserError, match=message):
        of_rows(tmp_path, rows, prompt=prompt)


def test_an_unknown_column_of_a_parquet_file_is_named(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(reviews()), path)
    record = prepare(tmp_path / "prepare", {"a.txt": "one"})
    corpus = Corpus(source="files", files=("0" * 16,), text_key="text")
    asked = {"corpus": corpus, "prompt": "{text}", "choices": True}
    for wrong in ({"answer": "{lable}"}, {"answer": "{label}", "document": "lable"}):
        with pytest.raises(UserError, match=r"no column 'lable' \(columns: text, label, film\)"):
            Written(tmp_path / "out", [record, path], **asked, **wrong)


def test_rows_of_a_document_and_like_prompts_stay_together(tmp_path):
    rows = reviews(240)
    for row in rows[:120]:
        row["text"] = rows[row["film"] + 120]["text"]  # asked in two films
    found = of_rows(tmp_path, rows, document="film")
    assert_apart(found)
    rows = [{**row, "film": None if n % 2 else ""} for n, row in enumerate(reviews(240))]
    found = of_rows(tmp_path / "none", rows, document="film")
    assert_apart(found)
    assert sum(found.result["documents"].values()) == 240


def test_rows_that_are_left_out_are_counted(tmp_path):
    rows = reviews(200)
    rows += [rows[0], {**rows[1], "text": None}, {**rows[2], "label": " "}]
    rows += [{**rows[3], "text": "half \ud83d"}]
    found = of_rows(tmp_path, rows)
    assert found.result["left_out"] == {
        "a repeated example": 1,
        "an empty prompt or answer": 2,
        "half of a surrogate pair, which is no text": 1,
    }
    assert sum(found.result["examples"].values()) == 200


def test_a_label_that_only_others_have_is_left_out_and_counted(tmp_path):
    rows = reviews(200)
    before = of_rows(tmp_path / "before", rows, document="film")
    film = int(before.test[0]["document"])
    next(row for row in rows if row["film"] == film)["label"] = "odd"
    found = of_rows(tmp_path / "after", rows, document="film")
    assert found.result["choices"] == before.result["choices"]
    assert found.result["left_out"] == {"a label that the training part lacks": 1}
    assert len(found.test) == len(before.test) - 1


@pytest.mark.parametrize(
    ("rows", "asked", "message"),
    [
        (reviews(200, ["one"]), {}, "has 1 labels; 2 to 200"),
        (reviews(1500, range(300)), {"items": 1500}, "has 300 labels; 2 to 200"),
        (reviews(60), {}, r"too few examples \(train 36, test 16, validation 8\).*and test$"),
        (reviews(200), {"items": 40}, "too few examples.*or raise items$"),
        ([*reviews(200), {**reviews(1)[0], "text": "new", "label": "rare"}], {}, "'rare'"),
        ([{**row, "text": None} for row in reviews()], {}, "no row has a prompt and an answer"),
        ([{**row, "film": 1} for row in reviews()], {"document": "film"}, "no test example"),
    ],
)
def test_too_little_to_tell_anything_from_is_refused(tmp_path, rows, asked, message):
    with pytest.raises(UserError, match=rf"finetune\.mine.*{message}"):
        of_rows(tmp_path, rows, **asked)


def test_text_without_columns_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("a line\n" * 50)
    record = prepare(tmp_path / "prepare", {"a.txt": "one"})
    corpus = Corpus(source="files", files=("0" * 16,))
    asked = {"corpus": corpus, "prompt": "{text}", "answer": "{label}", "choices": True}
    with pytest.raises(UserError, match=r"finetune\.mine\.examples: .*notes\.txt has no columns"):
        Written(tmp_path / "out", [record, path], **asked)


@pytest.mark.parametrize(
    ("source", "message"), [("part", "two folders"), ("docstring", "no Python")]
)
def test_a_corpus_that_has_no_such_thing_is_told_so(tmp_path, source, message):
    prose = {f"{n}.txt": f"the king of {n} lands went home\n" * 40 for n in range(30)}
    record = prepare(tmp_path / "prepare", prose)
    with pytest.raises(UserError, match=rf"finetune\.mine\.examples: {source} is not .*{message}"):
        Written(tmp_path / "out", [record], source=source)


def test_held_out_text_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"held_out\.parquet: cannot be read"):
        Written(tmp_path / "out", [tmp_path / "record.json"], source="part")


def test_as_a_job_after_a_real_prepare_run(prepared, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in reviews()))
    corpus = sources.corpus(str(path), "text", None)
    spec = ExamplesSpec(
        task="finetune_reviews", data=prepared.parent.name, corpus=corpus, prompt="{text}",
        answer=" {label}", choices=True, items=200, validation=0.1, test=0.3,
    )  # fmt: skip
    record = tmp_path / spec.id / "record.json"
    job.carry_out("examples", spec.canonical(), record, [prepared, path])
    assert read(record).result["examples"] == {"train": 120, "validation": 20, "test": 60}
    held = pq.read_table(prepared.parent / "held_out.parquet")
    assert pq.read_table(record.parent / "unseen.parquet").num_rows == held.num_rows
