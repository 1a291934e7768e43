"""prepare: what is packed is what was written, and nothing held out is trained on."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from preparing import contents, files, jsonl, prose, run

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure.text import shuffle, training_text
from llama_bench.measure.text.corpus import documents
from llama_bench.measure.text.tokenizer import BOS, Encoder
from llama_bench.specs import Corpus, PrepareSpec, Pretrained


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
    begins = np.flatnonzero(ids == tokenizer.bos_token_id)
    assert len(begins) == result["documents"]["train"]
    lengths = np.load(prepared.parent / "token_bytes.npy")
    assert lengths[ids].sum() == result["bytes"]["train"]
    texts = {d.text for d in documents(Corpus(source="python-stdlib"), []) if d}
    held = set(pq.read_table(prepared.parent / "held_out.parquet").column("text").to_pylist())
    trained = {tokenizer.decode(one[1:]) for one in np.split(ids, begins)[1:]}
    assert len(trained) == len(begins) and trained <= texts and held <= texts
    assert not trained & held


def test_a_part_of_a_corpus_is_no_larger_than_asked(prepared):
    result = records.read(prepared).result
    sizes = result["bytes"]
    largest = max(len(d.text.encode()) for d in documents(Corpus(source="python-stdlib"), []) if d)
    assert 400_000 <= sum(sizes.values()) < 400_000 + largest


def test_a_part_is_part_of_a_larger_part(tmp_path):
    path = jsonl(tmp_path / "docs.jsonl", prose(60))
    texts = []
    for most in (20_000, 60_000, None):
        run(tmp_path / str(most), [path], corpus=files([path], text_key="text", max_bytes=most))
        folder = tmp_path / str(most)
        texts.append(_trained(folder) | _held(folder))
    assert texts[0] < texts[1] < texts[2]


def _trained(folder):
    encoder = Encoder(folder / "tokenizer")
    ids = np.fromfile(folder / "train.bin", dtype=encoder.dtype)
    pieces = np.split(ids, np.flatnonzero(ids == encoder.bos))[1:]
    return {encoder.tokenizer.decode(piece[1:].tolist()) for piece in pieces}


def _held(folder):
    encoder = Encoder(folder / "tokenizer")
    ids = np.fromfile(folder / "validation.bin", dtype=encoder.dtype)
    pieces = np.split(ids, np.flatnonzero(ids == encoder.bos))[1:]
    validation = {encoder.tokenizer.decode(piece[1:].tolist()) for piece in pieces}
    return validation | set(pq.read_table(folder / "held_out.parquet").column("text").to_pylist())


def test_the_parts_are_apart_and_near_copies_stay_together(tmp_path):
    originals = prose(60)
    copies = [text + " and a little more" for text in originals]
    path = jsonl(tmp_path / "docs.jsonl", originals + copies)
    result = run(tmp_path / "out", [path], text_key="text")
    assert result["near_duplicate_documents"] == 120
    assert sum(result["documents"].values()) == 120
    assert all(count % 2 == 0 and count > 0 for count in result["documents"].values())
    held_out = pq.read_table(tmp_path / "out" / "held_out.parquet").column("text").to_pylist()
    assert sorted(t in originals for t in held_out).count(True) * 2 == len(held_out)


def test_neither_the_order_nor_the_names_of_files_matter(tmp_path):
    texts = prose(30)
    for folder, numbers in (("a", range(30)), ("b", range(30)), ("c", range(29, -1, -1))):
        (tmp_path / folder).mkdir()
        paths = [tmp_path / folder / f"{folder}{number}.txt" for number in numbers]
        for path, number in zip(paths, numbers, strict=True):
            path.write_text(texts[number])
        run(tmp_path / f"of-{folder}", paths)
    found = [contents(tmp_path / f"of-{folder}") for folder in "abc"]
    for content in found:
        del content["held_out.parquet"]  # holds the names
    assert found[0] == found[1] == found[2]
    hashes = {
        records.read(tmp_path / f"of-{f}" / "record.json").result["corpus_sha256"] for f in "abc"
    }
    assert len(hashes) == 1


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """Some code and some prose, with copies and dirt in it, as one file."""
    texts = [d.text for d in documents(Corpus(source="python-stdlib"), []) if d][::30]
    texts = [t[:20_000] for t in texts] + prose(100) + prose(20) + ["zero\u200bwidth \x07"] * 3
    return jsonl(tmp_path_factory.mktemp("stories") / "docs.jsonl", texts)


STEPS = ("unicode", "whitespace", "exact_duplicates", "near_duplicates", "length", "characters")


def test_two_processes_give_what_one_gives(stories, tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "BATCH_BYTES", 50_000)
    monkeypatch.setattr(training_text, "STRETCH_BYTES", 50_000)
    results = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        results.append(run(tmp_path / threads, [stories], text_key="text", clean=STEPS))
    assert results[0] == results[1]
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_small_pieces_give_what_one_gives(stories, tmp_path, monkeypatch):
    first = run(tmp_path / "usual", [stories], text_key="text", clean=STEPS)
    monkeypatch.setattr(shuffle, "BUCKETS", 1)
    monkeypatch.setattr(training_text, "STRETCH_BYTES", 10**9)
    assert run(tmp_path / "whole", [stories], text_key="text", clean=STEPS) == first
    monkeypatch.setattr(shuffle, "BUCKETS", 7)
    monkeypatch.setattr(shuffle, "BATCH_BYTES", 1)
    monkeypatch.setattr(training_text, "STRETCH_BYTES", 1)
    assert run(tmp_path / "tiny", [stories], text_key="text", clean=STEPS) == first
    assert (
        contents(tmp_path / "usual") == contents(tmp_path / "whole") == contents(tmp_path / "tiny")
    )


def test_a_variant_of_the_same_corpus_is_the_same(stories, tmp_path):
    base = run(tmp_path / "base", [stories], text_key="text")
    record = tmp_path / "base" / "record.json"
    same = run(tmp_path / "same", [stories], text_key="text", held_out_of="b", base=[record])
    assert contents(tmp_path / "same") == contents(tmp_path / "base")
    held = base["documents"]["validation"] + base["documents"]["test"]
    assert same.pop("overlapping_documents") == held
    assert same == base


def test_cleaning_leaves_the_held_out_text_and_the_order(stories, tmp_path):
    base = run(tmp_path / "base", [stories], text_key="text")
    record = tmp_path / "base" / "record.json"
    clean = run(
        tmp_path / "clean", [stories], text_key="text", held_out_of="b", base=[record], clean=STEPS
    )
    before, after = contents(tmp_path / "base"), contents(tmp_path / "clean")
    assert [name for name in before if before[name] != after[name]] == ["train.bin"]
    assert [row["step"] for row in clean["cleaning"]] == list(STEPS)
    documents_, bytes_ = base["documents"]["train"], base["bytes"]["train"]
    for row in clean["cleaning"]:
        documents_ -= row["documents_removed"]
        bytes_ -= row["bytes_removed"]
        assert (row["documents"], row["bytes"]) == (documents_, bytes_)
    assert (clean["documents"]["train"], clean["bytes"]["train"]) == (documents_, bytes_)
    assert clean["cleaning"][2]["documents_removed"] >= 15  # of 20 prose copies, most train
    assert clean["cleaning"][0]["documents_changed"] in (0, 3)

    encoder = Encoder(tmp_path / "base" / "tokenizer")
    only = run(
        tmp_path / "one", [stories], text_key="text", held_out_of="b", base=[record],
        clean=("near_duplicates",),
    )  # fmt: skip
    orders = []
    for folder in ("base", "one"):
        ids = np.fromfile(tmp_path / folder / "train.bin", dtype="<u2")
        orders.append([x.tobytes() for x in np.split(ids, np.flatnonzero(ids == encoder.bos))[1:]])
    left = iter(orders[0])
    assert all(text in left for text in orders[1])  # a subsequence
    assert len(orders[0]) - len(orders[1]) == only["cleaning"][0]["documents_removed"]


@pytest.mark.parametrize(
    ("steps", "acts"), [(("near_duplicates", "unicode"), False), (("length",), True)]
)
def test_steps_whose_counts_are_zero_leave_the_same_tokens(tmp_path, steps, acts):
    """By which a report tells that two texts are one."""
    path = jsonl(tmp_path / "docs.jsonl", prose(40) + prose(20, words=40, seed=1))
    base = run(tmp_path / "base", [path], text_key="text")
    given = {"text_key": "text", "held_out_of": "b", "base": [tmp_path / "base" / "record.json"]}
    found = run(tmp_path / "cleaned", [path], clean=steps, **given)
    taken = ("documents_removed", "bytes_removed", "documents_changed")
    assert any(row[count] for row in found["cleaning"] for count in taken) is acts
    tokens = [(tmp_path / name / "train.bin").read_bytes() for name in ("base", "cleaned")]
    assert (tokens[0] != tokens[1]) is acts
    assert found["corpus_sha256"] == base["corpus_sha256"]


def test_a_variant_holds_nothing_near_to_held_out_text(tmp_path):
    texts = prose(80)
    path = jsonl(tmp_path / "docs.jsonl", texts)
    base = run(tmp_path / "base", [path], text_key="text")
    held = _held(tmp_path / "base")
    near = [text + "\nand a little more" for text in texts]
    other = jsonl(tmp_path / "other.jsonl", near + prose(40, seed=1))
    record = tmp_path / "base" / "record.json"
    found = run(tmp_path / "other", [other], text_key="text", held_out_of="b", base=[record])
    assert found["overlapping_documents"] == len(held) > 2
    assert found["documents"]["train"] == 120 - len(held)
    assert found["documents"]["test"] == base["documents"]["test"]
    assert not {t.removesuffix("\nand a little more") for t in _trained(tmp_path / "other")} & held


def test_making_a_run_again_leaves_those_that_share_its_files(tmp_path):
    path = jsonl(tmp_path / "docs.jsonl", prose(40))
    run(tmp_path / "base", [path], text_key="text")
    record = tmp_path / "base" / "record.json"
    run(tmp_path / "same", [path], text_key="text", held_out_of="b", base=[record])
    before = contents(tmp_path / "same")
    run(tmp_path / "base", [path], text_key="text", seed=1, vocab_size=310)
    assert contents(tmp_path / "same") == before != contents(tmp_path / "base")


def test_a_special_token_in_a_text_is_text(tmp_path):
    path = jsonl(tmp_path / "docs.jsonl", [f"{text} {BOS} and on" for text in prose(30)])
    result = run(tmp_path / "out", [path], text_key="text")
    ids = np.fromfile(tmp_path / "out" / "train.bin", dtype="<u2")
    assert (ids == 0).sum() == result["documents"]["train"]
    assert np.load(tmp_path / "out" / "token_bytes.npy")[ids].sum() == result["bytes"]["train"]


def test_one_long_text_is_many_documents(tmp_path):
    path = tmp_path / "book.txt"
    chapters = [
        f"Chapter {n}\n" + "\n".join(f"{n} sentence {k * n}." for k in range(300))
        for n in range(60)
    ]
    path.write_text("\n\n".join(chapters))
    result = run(tmp_path / "out", [path])
    assert min(result["documents"].values()) >= 1
    assert sum(result["bytes"].values()) == path.stat().st_size


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["one document only"], "at least 3"), (["the very same words here"] * 9, "nearly the same")],
)
def test_a_corpus_too_small_to_be_split_is_refused(tmp_path, texts, message):
    path = jsonl(tmp_path / "docs.jsonl", texts)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "out", [path], text_key="text")
    assert not (tmp_path / "out" / "shuffle").exists()


def test_a_text_that_cleaning_leaves_nothing_of_is_refused(tmp_path):
    path = jsonl(tmp_path / "docs.jsonl", prose(30, words=20))
    with pytest.raises(UserError, match=r"data\.corpus: nothing is left .* length"):
        run(tmp_path / "out", [path], text_key="text", held_out_of="b", clean=("length",),
            base=[_base(tmp_path)])  # fmt: skip


def _base(tmp_path):
    run(tmp_path / "base", [jsonl(tmp_path / "base.jsonl", prose(30, seed=2))], text_key="text")
    return tmp_path / "base" / "record.json"


def test_a_vocabulary_that_the_corpus_does_not_yield_is_refused(tmp_path):
    """Else probes, which are asked of a shape and a vocabulary, would time another model."""
    path = jsonl(tmp_path / "docs.jsonl", [f"note {n} of {n * n}" for n in range(50)])
    with pytest.raises(UserError, match=r"data\.vocab_size: 5000 .* yields \d+"):
        run(tmp_path / "out", [path], text_key="text", vocab_size=5000)


@pytest.mark.parametrize(("name", "size"), [("stories260K", 512), ("stories3M", 4096)])
def test_a_real_pretrained_tokenizer(shared, tmp_path, name, size):
    from transformers import AutoTokenizer

    model = shared("models", name)
    lines = shared("eval", "tinystories_ppl", "stories500.jsonl").read_text().splitlines()[:100]
    path = jsonl(tmp_path / "docs.jsonl", [json.loads(line)["text"] for line in lines])
    given = dict(
        text_key="text", tokenizer=Pretrained(digest="0"), tokenizer_folder=[model], vocab_size=size
    )
    result = run(tmp_path / "out", [path], **given)
    assert result["vocab_size"] == size and result["bits_per_byte_reason"] is None
    theirs = AutoTokenizer.from_pretrained(model)
    ids = np.fromfile(tmp_path / "out" / "train.bin", dtype="<u2")
    begins = np.flatnonzero(ids == theirs.bos_token_id)
    texts = {json.loads(line)["text"] for line in lines}
    for piece in np.split(ids, begins)[1:6]:
        text = theirs.decode(piece, skip_special_tokens=True)
        assert text in texts
        assert theirs(text)["input_ids"] == piece.tolist()
    lengths = np.load(tmp_path / "out" / "token_bytes.npy")
    assert lengths[ids].sum() == result["bytes"]["train"] + len(begins)  # one space before each
    copied = {path.name for path in (tmp_path / "out" / "tokenizer").iterdir()}
    assert copied == {"tokenizer.json", "tokenizer_config.json"}
    with pytest.raises(UserError, match=rf"data\.vocab_size: 300 .* {size} ids"):
        run(tmp_path / "other", [path], **{**given, "vocab_size": 300})


def test_a_killed_run_is_made_again_as_if_nothing_had_been(stories, tmp_path):
    run(tmp_path / "whole", [stories], text_key="text")
    spec = PrepareSpec(corpus=files([stories], text_key="text"), vocab_size=300, held_out=0.1)
    words = [sys.executable, "-m", "llama_bench", "prepare", spec.canonical()]
    words += [str(tmp_path / "killed" / "record.json"), str(stories)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as job:
        assert any("training a tokenizer" in line for line in job.stderr)
        job.kill()
    assert (tmp_path / "killed" / "shuffle").exists()
    assert not (tmp_path / "killed" / "record.json").exists()
    subprocess.run(words, check=True, capture_output=True)
    found = contents(tmp_path / "killed")
    assert {"log.txt", ".lock"} <= set(found)
    assert contents(tmp_path / "whole") == {
        n: found[n] for n in found if n not in ("log.txt", ".lock")
    }


def test_a_full_disk_is_one_clear_message(tmp_path):
    """The limit on a file's size stands in for the disk's: the kernel refuses the same call."""
    path = jsonl(tmp_path / "docs.jsonl", prose(400))
    corpus = files([path], text_key="text")
    spec = PrepareSpec(corpus=corpus, vocab_size=300, held_out=0.1).canonical()
    words = [sys.executable, "-m", "llama_bench", "prepare", spec]
    words += [str(tmp_path / "out" / "record.json"), str(path)]
    asked = subprocess.run(
        ["bash", "-c", 'ulimit -f 100; exec "$@"', "-", *words],
        capture_output=True, text=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert asked.returncode == 1
    assert "the disk is full" in asked.stderr and "Traceback" not in asked.stderr
    assert not (tmp_path / "out" / "record.json").exists()
    assert not (tmp_path / "out" / "shuffle").exists()
