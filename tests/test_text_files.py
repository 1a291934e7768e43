"""What the first kilobytes of a file, or a tokenizer's own file, tell before any job starts."""

import gzip
import json

import pytest

from llama_bench import sources

LINE = json.dumps({"text": "some words"}).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"x\0y", "is binary"),
        ("a.txt", b"caf\xe9 au lait", r"not UTF-8 text \(byte 3\)"),
        ("a.jsonl", b"{'text': 1}\n", "first line is not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', r"no text under 'text' \(keys: body\)"),
        ("a.parquet", b"PAR1 and then it ends", "not a whole Parquet file"),
        ("a.csv", b"x,y\n", "none of .txt"),
        ("a.csv.gz", gzip.compress(b"x,y\n"), "none of .txt"),
        ("a.parquet.gz", gzip.compress(b"PAR1"), "compresses itself"),
        ("a.jsonl.gz", LINE, "cut short or damaged"),
        ("a.jsonl.gz", gzip.compress(LINE)[:-4], "cut short or damaged"),
        ("a.jsonl.xz", gzip.compress(LINE), "cut short or damaged"),
        ("a.jsonl.zst", LINE, "cut short or damaged"),
        ("a.jsonl.bz2", LINE, "cut short or damaged"),
        ("a.jsonl.gz", gzip.compress(b"\0" + LINE), "is binary"),
    ],
)
def test_what_is_no_text_is_refused_by_its_head(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        sources.corpus(str(path), "text", None)
    assert name in str(raised.value)


def test_a_head_may_end_within_a_character(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x" * 65_535 + "ü" * 10)
    assert sources.corpus(str(path), "text", None).source == "files"


def test_a_folder_gives_its_text_files_compressed_or_not(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINE))
    (tmp_path / "deep" / "a.txt").write_text("words")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(b"x"))
    names = [path.name for path in sources.corpus_files([str(tmp_path)])]
    assert names == ["b.jsonl.gz", "a.txt"]
    assert sources.corpus(str(tmp_path), "text", None).text_key == "text"


def test_tokenizers_are_counted_and_known_by_content(shared, tmp_path):
    small, large = shared("models", "stories260K"), shared("models", "stories3M")
    assert sources.tokenizer_size(small) == 512
    assert sources.tokenizer_size(large) == 4096
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((small / name).read_bytes())
    assert sources.tokenizer_digest(tmp_path) == sources.tokenizer_digest(small)
    assert sources.tokenizer_digest(small) != sources.tokenizer_digest(large)


def test_what_is_no_tokenizer_is_refused(tmp_path):
    for ask in (sources.tokenizer_size, sources.tokenizer_digest):
        with pytest.raises(ValueError, match=r"no tokenizer\.json"):
            ask(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(ValueError, match="no tokenizer of the tokenizers library"):
        sources.tokenizer_size(tmp_path)
