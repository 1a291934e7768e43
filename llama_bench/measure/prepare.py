"""From documents to tokens: split by document, train a tokenizer, pack.

Which part a document falls into depends on a hash of its group's name and the seed alone, so the
split does not change with the order of files. The tokenizer is a byte-level BPE (Sennrich et al.
2016; bytes as in GPT-2), trained on training text only: what is held out shapes nothing. Every
document begins with `<|bos|>`; nothing else marks its end.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

# the tokenizers' own threads follow the workflow's, and must be told before they start
os.environ["RAYON_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count())
os.environ["TOKENIZERS_PARALLELISM"] = "true"

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llama_bench.fields import UserError
from llama_bench.measure.corpus import Document, documents, groups
from llama_bench.specs import PrepareSpec

BOS = "<|bos|>"
TOKENIZER_BYTES = 8_000_000  # of training text; more does not change a small vocabulary
ENCODE_AT_ONCE = 256  # documents; bounds memory, and gives progress something to say

PARTS = ("train", "validation", "test")


def run(spec: PrepareSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Write tokenizer, token files and held-out text into `folder`; docs/protocol.md has the keys.

    Raises UserError where the corpus is empty, unreadable, or too small to be split.
    """
    progress.say("reading documents")
    docs, unreadable = _read(spec, inputs)
    group = groups(docs)
    parts = _split(docs, group, spec)
    progress.say(
        f"training a tokenizer of {spec.vocab_size} ids on {len(parts['train'])} documents"
    )
    tokenizer = _train_tokenizer(parts["train"], spec.vocab_size)
    found = tokenizer.get_vocab_size()
    if found != spec.vocab_size:
        raise UserError(
            f"data.vocab_size: {spec.vocab_size} ids are asked for, this corpus yields {found}; "
            "ask for at most that, or give more text"
        )
    _save_tokenizer(tokenizer, folder / "tokenizer")
    token_bytes = _bytes_of_tokens(tokenizer)
    np.save(folder / "token_bytes.npy", token_bytes)
    width = np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32
    total = len(parts["train"]) + len(parts["validation"])
    done, tokens = 0, {}
    for part in ("train", "validation"):
        path = folder / f"{part}.bin"
        tokens[part] = 0
        with open(path, "wb") as file:
            for ids in _encoded(tokenizer, parts[part], width):
                file.write(ids.tobytes())
                tokens[part] += len(ids)
                done += ENCODE_AT_ONCE
                progress(min(done, total), total, "documents encoded")
    _write_held_out(parts["test"], folder / "held_out.parquet")
    sizes = {part: sum(len(doc.text.encode()) for doc in parts[part]) for part in PARTS}
    return {
        "documents": {part: len(parts[part]) for part in PARTS},
        "bytes": sizes,
        "tokens": tokens,
        "near_duplicate_documents": int((np.bincount(group)[group] > 1).sum()),
        "unreadable_documents": unreadable,
        "corpus_sha256": _content_hash(docs),
        "vocab_size": tokenizer.get_vocab_size(),
        "token_width": np.dtype(width).itemsize,
        "bytes_per_token": sizes["validation"] / tokens["validation"],
    }


def _read(spec: PrepareSpec, inputs: list[Path]) -> tuple[list[Document], int]:
    docs, unreadable, size = [], 0, 0
    most = spec.corpus.max_bytes
    for doc in _any_order(spec, inputs) if most else documents(spec.corpus, inputs):
        if doc is None:
            unreadable += 1
            continue
        docs.append(doc)
        size += len(doc.text.encode())
        if most and size >= most:
            break
    if len(docs) < 3:
        raise UserError(
            f"data.corpus: holds {len(docs)} documents with text ({unreadable} are not text); "
            "at least 3 are needed for training, validation and test"
        )
    return docs, unreadable


def _any_order(spec: PrepareSpec, inputs: list[Path]) -> list[Document | None]:
    """A part of a corpus is taken from all over it: by hash, not by name."""
    everything = list(documents(spec.corpus, inputs))
    return sorted(everything, key=lambda doc: _rank(doc.name, spec.seed) if doc else b"")


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _split(docs: list[Document], group: np.ndarray, spec: PrepareSpec) -> dict[str, list[Document]]:
    """Test, then validation, are filled with whole groups in hash order; the rest is training."""
    members: dict[int, list[Document]] = {}
    for doc, number in zip(docs, group.tolist(), strict=True):
        members.setdefault(number, []).append(doc)
    # a group's hash is that of its first name, whatever order the documents came in
    order = sorted(members.values(), key=lambda m: _rank(min(d.name for d in m), spec.seed))
    if len(order) < 3:
        raise UserError(
            "data.corpus: its documents are all nearly the same; nothing can be held out"
        )
    wanted = spec.held_out * sum(len(doc.text) for doc in docs)
    parts: dict[str, list[Document]] = {part: [] for part in PARTS}
    sizes = dict.fromkeys(PARTS, 0)
    for position, members_of_one in enumerate(order):
        size = sum(len(doc.text) for doc in members_of_one)
        part = next((p for p in ("test", "validation") if not sizes[p]), None)
        if part is None:
            # a document far longer than the share would swallow the part: it trains
            fits = (p for p in ("test", "validation") if sizes[p] + size / 2 <= wanted)
            part = next(fits, "train")
        if position == len(order) - 1 and not sizes["train"]:
            part = "train"
        parts[part] += members_of_one
        sizes[part] += size
    return parts


def _train_tokenizer(docs: list[Document], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample, size = [], 0
    for doc in docs:
        sample.append(doc.text)
        size += len(doc.text)
        if size >= TOKENIZER_BYTES:
            break
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """What AutoTokenizer needs, without importing transformers for it (3 s)."""
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": BOS,
        "pad_token": BOS,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _bytes_of_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """(vocabulary,) uint16: bytes of text that each id stands for; 0 for the special one.

    In the byte alphabet one character is one byte, so a token's length is its count of bytes.
    """
    lengths = np.zeros(tokenizer.get_vocab_size(), dtype=np.uint16)
    for token, number in tokenizer.get_vocab().items():
        lengths[number] = 0 if token == BOS else len(token)
    return lengths


def _encoded(tokenizer: Tokenizer, docs: list[Document], width: type):
    """Arrays of ids, some documents each, every document after one BOS."""
    bos = tokenizer.token_to_id(BOS)
    for start in range(0, len(docs), ENCODE_AT_ONCE):
        texts = [doc.text for doc in docs[start : start + ENCODE_AT_ONCE]]
        ids: list[int] = []
        for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            ids.append(bos)
            ids += encoding.ids
        yield np.array(ids, dtype=width)


def _write_held_out(docs: list[Document], path: Path) -> None:
    table = pa.table({"name": [d.name for d in docs], "text": [d.text for d in docs]})
    pq.write_table(table, path, compression="zstd")


def _content_hash(docs: list[Document]) -> str:
    digest = hashlib.sha256()
    for doc in sorted(docs):
        digest.update(f"{doc.name}\0{doc.text}\0".encode())
    return digest.hexdigest()
