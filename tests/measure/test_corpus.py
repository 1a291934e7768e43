"""Documents: all kinds of files and datasets give the same, and damage is named."""

import bz2
import gzip
import json
import lzma
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import files

from llama_bench import sources
from llama_bench.fields import UserError
from llama_bench.measure.job import Failure
from llama_bench.measure.text.corpus import documents
from llama_bench.measure.text.hub import tokenizer_files
from llama_bench.specs import Corpus, Pretrained

TEXTS = [f"Document {n} says {n * n} and {n * 7} – “ü”." for n in range(20)]


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


COMPRESSIONS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def read(paths, **fields):
    corpus = files(paths, text_key="body", **fields)
    return [doc.text for doc in documents(corpus, paths) if doc]


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_three_kinds_of_files_give_the_same_documents(tmp_path, kind):
    if kind == "text":
        paths = [tmp_path / f"{n}.txt" for n in range(20)]
        for path, text in zip(paths, TEXTS, strict=True):
            path.write_text(text)
    elif kind == "jsonl":
        paths = [tmp_path / "docs.jsonl"]
        paths[0].write_text("".join(json.dumps({"body": t}) + "\n" for t in TEXTS))
    else:
        paths = [tmp_path / "docs.parquet"]
        pq.write_table(pa.table({"body": TEXTS}), paths[0])
    assert read(paths) == TEXTS


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_compressed_file_gives_what_the_plain_one_gives(tmp_path, suffix):
    lines = "".join(json.dumps({"body": t}) + "\n" for t in TEXTS * 500).encode()
    path = tmp_path / f"docs.jsonl{suffix}"
    path.write_bytes(COMPRESSIONS[suffix](lines))
    assert read([path]) == TEXTS * 500
    long = tmp_path / f"book.txt{suffix}"
    long.write_bytes(COMPRESSIONS[suffix]("\n\n".join(TEXTS * 500).encode()))
    assert "".join(read([long])) == "\n\n".join(TEXTS * 500)


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["jsonl", "txt", "py"])
def test_a_compressed_file_that_ends_too_early_is_named(tmp_path, suffix, kind):
    lines = "".join(json.dumps({"body": t}) + "\n" for t in TEXTS * 500).encode()
    whole = COMPRESSIONS[suffix](lines)
    path = tmp_path / f"docs.{kind}{suffix}"
    for cut in (1, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        with pytest.raises(UserError, match=rf"docs\.{kind}\{suffix}: is cut short or damaged"):
            read([path])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\xff\xfe\xfa", r"not UTF-8 text \(byte 0\)"),
        ("a.txt", b"word " * 30_000 + b"\xff", r"not UTF-8 text \(byte 150000\)"),
        ("a.jsonl", b'{"body": "x"}\n{"bod": "y"}\n', "line 2"),
        ("a.jsonl", b'{"body": "x"}\nnot json\n', "line 2"),
        ("a.jsonl", b'{"body": "x"}\n{"body": "\xff"}\n', "line 2 is not UTF-8"),
        ("a.jsonl", b'{"body": "x"}\n\n{"body": "cut sho', "line 3"),
        ("a.parquet", b"PAR1 damaged", "Parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read([path])
    assert str(path) in str(raised.value)


def test_a_text_without_lines_is_cut_between_words(tmp_path):
    path = tmp_path / "text8.txt"
    path.write_text("some words without end ü " * 20_000)
    pieces = read([path])
    assert "".join(pieces) == path.read_text()
    assert max(map(len, pieces)) <= 32_768
    assert all(piece.endswith(" ") for piece in pieces)


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "\\ud83d"}\n{"body": "\\ud83d\\ude00"}\n')
    assert [doc and doc.text for doc in documents(files([path], text_key="body"), [path])] == [
        None,
        "😀",
    ]


def test_python_stdlib_is_this_interpreters_and_nothing_installed():
    root = Path(sysconfig.get_paths()["stdlib"])
    found = {doc.name: doc.text for doc in documents(Corpus(source="python-stdlib"), []) if doc}
    assert found["json/decoder.py"] == (root / "json" / "decoder.py").read_text()
    assert not any("site-packages" in name for name in found)


class Dataset:
    """As config.yaml names one."""

    def __init__(self, repo, revision=None, subset=None, split="train"):
        self.repo, self.revision, self.subset, self.split = str(repo), revision, subset, split


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for split, texts in (("train", TEXTS), ("test", TEXTS[:3])):
        lines = "".join(json.dumps({"n": 1, "body": t}) + "\n" for t in texts)
        (folder / f"{split}.jsonl").write_text(lines)
    return folder


def rows(given, text_key="body"):
    corpus = sources.corpus(given, text_key, None)
    return [doc.text for doc in documents(corpus, sources.corpus_files(given)) if doc]


def test_a_folder_stands_in_for_a_hub_dataset(dataset):
    assert rows(Dataset(dataset)) == TEXTS
    assert rows(Dataset(dataset, split="test")) == TEXTS[:3]


def test_a_local_dataset_is_known_by_its_content(dataset, tmp_path):
    first = sources.corpus(Dataset(dataset), "body", None)
    moved = dataset.rename(tmp_path / "elsewhere").rename(tmp_path / "deep")
    (tmp_path / "below").mkdir()
    moved = moved.rename(tmp_path / "below" / "texts")
    assert sources.corpus(Dataset(moved), "body", None) == first
    (moved / "train.jsonl").write_text('{"body": "else"}\n')
    sources.file_digest.cache_clear()
    assert sources.corpus(Dataset(moved), "body", None).version != first.version


@pytest.mark.parametrize(
    ("fields", "text_key", "message"),
    [
        ({"split": "dev"}, "body", "dev.*train.*test"),
        ({"subset": "german"}, "body", "german.*default"),
        ({}, "text", r"no column 'text' \(columns: n, body\)"),
    ],
)
def test_what_a_dataset_does_not_have_is_named(dataset, fields, text_key, message):
    with pytest.raises(UserError, match=message):
        rows(Dataset(dataset, **fields), text_key)


def test_a_hub_out_of_reach_is_an_accident_that_names_the_switch():
    """The tests run with HF_HUB_OFFLINE."""
    with pytest.raises(Failure, match=r"nobody/nothing .*HF_HUB_OFFLINE"):
        rows(Dataset("nobody/nothing", revision="main"))


def test_a_hub_tokenizer_out_of_reach_is_an_accident_too():
    with pytest.raises(Failure, match=r"nobody/nothing .*HF_HUB_OFFLINE"):
        tokenizer_files(Pretrained(repo="nobody/nothing", revision="main"))
