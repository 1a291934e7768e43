"""prepare: what is packed is what was written, and nothing held out is trained on."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure import prepare
from llama_bench.measure.corpus import Document, documents, groups
from llama_bench.specs import Corpus, PrepareSpec


class Silent:
    def __call__(self, *_):
        pass

    say = __call__


def run(folder, paths, text_key=None, **fields):
    corpus = Corpus(source="files", files=tuple("0" * 16 for _ in paths), text_key=text_key)
    spec = PrepareSpec(corpus=corpus, **{"vocab_size": 300, "held_out": 0.1, **fields})
    return prepare.run(spec, folder, paths, Silent())


def test_auto_tokenizer_reads_back_every_byte(prepared):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(prepared.parent / "tokenizer")
    text = "def f(x):\n\treturn 'ä€😀\\x00'  # tab, bytes\r\n"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.bos_token_id not in ids
    assert max(ids) < len(tokenizer) == records.read(prepared).result["vocab_size"] == 512


def test_the_token_file_holds_the_documents(prepared):
    from transformers import AutoTokenizer

    result = records.read(prepared).result
    tokenizer = AutoTokenizer.from_pretrained(prepared.parent / "tokenizer")
    ids = np.fromfile(prepared.parent / "train.bin", dtype="<u2")
    assert len(ids) == result["tokens"]["train"]
    assert (ids == tokenizer.bos_token_id).sum() == result["documents"]["train"]
    lengths = np.load(prepared.parent / "token_bytes.npy")
    assert lengths[ids].sum() == result["bytes"]["train"]
    first = ids[1 : 1 + int(np.argmax(ids[1:] == tokenizer.bos_token_id))]
    texts = {d.text for d in documents(Corpus(source="python-stdlib"), []) if d}
    assert tokenizer.decode(first) in texts


def test_the_parts_are_apart_and_near_copies_stay_together(tmp_path):
    rng = np.random.Generator(np.random.PCG64(0))
    words = [f"word{n}" for n in range(500)]
    originals = [" ".join(rng.choice(words, 200)) for _ in range(60)]
    copies = [text + " and a little more" for text in originals]
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(json.dumps({"text": t}) for t in originals + copies))
    result = run(tmp_path, [path], text_key="text")
    assert result["near_duplicate_documents"] == 120
    assert sum(result["documents"].values()) == 120
    assert all(count % 2 == 0 and count > 0 for count in result["documents"].values())
    held_out = pq.read_table(tmp_path / "held_out.parquet").column("text").to_pylist()
    assert sorted(t in originals for t in held_out).count(True) * 2 == len(held_out)


def test_different_documents_are_not_grouped():
    rng = np.random.Generator(np.random.PCG64(1))
    docs = [Document(str(n), " ".join(map(str, rng.integers(0, 999, 300)))) for n in range(50)]
    assert len(set(groups(docs).tolist())) == 50


def test_the_split_does_not_depend_on_the_order_of_files(tmp_path):
    paths = []
    for n in range(30):
        path = tmp_path / f"{n}.txt"
        path.write_text("\n".join(f"line {n * k} of {n}" for k in range(50)))
        paths.append(path)
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir(), second.mkdir()
    one, two = run(first, paths), run(second, paths[::-1])
    assert one["corpus_sha256"] == two["corpus_sha256"]
    names = [
        sorted(pq.read_table(f / "held_out.parquet").column("name").to_pylist())
        for f in (first, second)
    ]
    assert names[0] == names[1] != []


def test_one_long_text_is_many_documents(tmp_path):
    path = tmp_path / "book.txt"
    chapters = [
        f"Chapter {n}\n" + "\n".join(f"{n} sentence {k * n}." for k in range(300))
        for n in range(60)
    ]
    path.write_text("\n\n".join(chapters))
    result = run(tmp_path, [path])
    assert min(result["documents"].values()) >= 1
    assert sum(result["bytes"].values()) == path.stat().st_size


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_three_kinds_of_files_give_the_same_documents(tmp_path, kind):
    texts = [f"Document {n} says {n * n} and {n * 7}." for n in range(20)]
    if kind == "text":
        paths = [tmp_path / f"{n}.txt" for n in range(20)]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
    elif kind == "jsonl":
        paths = [tmp_path / "docs.jsonl"]
        paths[0].write_text("".join(json.dumps({"body": t}) + "\n" for t in texts))
    else:
        paths = [tmp_path / "docs.parquet"]
        pq.write_table(pa.table({"body": texts}), paths[0])
    corpus = Corpus(source="files", files=("0",) * len(paths), text_key="body")
    assert [d.text for d in documents(corpus, paths)] == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\xff\xfe\xfa", "not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"tex": "y"}\n', "line 2"),
        ("a.jsonl", b'{"text": "x"}\nnot json\n', "line 2"),
        ("a.parquet", b"PAR1 damaged", "Parquet"),
        ("a.txt", b"one document only", "at least 3"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        run(tmp_path, [path], text_key="text")


def test_a_vocabulary_that_the_corpus_does_not_yield_is_refused(tmp_path):
    """Else probes, which are asked of a shape and a vocabulary, would time another model."""
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"note {n} of {n * n}"}) for n in range(50)))
    with pytest.raises(UserError, match=r"data\.vocab_size: 5000 .* yields \d+"):
        run(tmp_path, [path], text_key="text", vocab_size=5000)
