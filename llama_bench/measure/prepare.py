"""From documents to tokens: split by document, clean, train a tokenizer, pack.

Documents are read once, hashed and sketched on their way to disk, and read again in the order of
their hashes; of a corpus larger than memory only an index is held. What is held out depends on the
documents' content and the seed alone, goes through no cleaning and shapes nothing: the tokenizer
is trained on training text only. Another training text can be prepared for the same held-out text
(`held_out_of`): what is nearly the same as any of that is left out of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

# the tokenizers' own threads follow the workflow's, and must be told before they start
os.environ["RAYON_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count())
os.environ["TOKENIZERS_PARALLELISM"] = "true"

from llama_bench.fields import UserError
from llama_bench.measure import job, process
from llama_bench.measure.text import cleaning, held_out, tokenizer, training_text
from llama_bench.measure.text.corpus import Document, documents
from llama_bench.measure.text.near_duplicates import groups
from llama_bench.measure.text.shuffle import Shuffle, content_hash
from llama_bench.measure.text.split import in_order, split
from llama_bench.measure.text.training_text import Training
from llama_bench.specs import PrepareSpec

SHUFFLED = "shuffle"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, no quota, no larger file allowed


class Inputs(NamedTuple):
    """In this order: record of the run that drew the held-out text, corpus files or folder,
    tokenizer folder; each where the spec speaks of one."""

    base: Path | None
    corpus: list[Path]
    tokenizer: Path | None

    @classmethod
    def told_apart(cls, spec: PrepareSpec, inputs: list[Path]) -> Inputs:
        rest = list(inputs)
        base = rest.pop(0) if spec.held_out_of else None
        local = spec.tokenizer is not None and spec.tokenizer.repo is None
        folder = rest.pop() if local else None
        return cls(base, rest, folder)


def run(spec: PrepareSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Write tokenizer, token files and held-out text into `folder`; docs/protocol.md has the keys.

    Raises UserError where the corpus is unreadable or too small to be split, or a tokenizer does
    not fit; Failure where the disk is full.
    """
    _clear(folder)
    try:
        return _prepared(spec, folder, Inputs.told_apart(spec, inputs), progress)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise job.Failure(
            f"{folder}: the disk is full ({error.strerror}); make room and start again, "
            "nothing that was finished is lost"
        ) from None
    finally:
        shutil.rmtree(folder / SHUFFLED, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Remove what an unfinished run left; its files may be links to another run's."""
    for name in (*held_out.FILES, training_text.FILE):
        (folder / name).unlink(missing_ok=True)
    for name in (held_out.TOKENIZER, SHUFFLED):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder / name)


def _prepared(spec: PrepareSpec, folder: Path, given: Inputs, progress) -> dict:
    index, unreadable = _read(spec, folder / SHUFFLED, given.corpus, progress)
    progress.say(f"looking for near copies among {len(index)} documents")
    old = held_out.sketches(given.base.parent) if given.base else index["sketch"][:0]
    group = groups(np.concatenate([old, index["sketch"]]))
    group, overlaps = group[len(old) :], np.isin(group[len(old) :], group[: len(old)])
    order = in_order(index["rank"], group)
    if given.base:
        train = order[~overlaps[order]]
        drawn = held_out.adopt(given.base, folder)
        drawn["overlapping_documents"] = int(overlaps.sum())
    else:
        train, validation, test = split(order, group, index["place"]["bytes"], spec.held_out)
    steps = spec.clean or ()
    training = Training(folder / SHUFFLED, index["place"][train], group[train], steps)
    if not given.base:
        _provide_tokenizer(spec, folder / held_out.TOKENIZER, given.tokenizer, training, progress)
        drawn = held_out.write(folder, folder / SHUFFLED, index[validation], index[test])
    packed = training_text.write(training, folder, process.threads(), progress)
    if not packed.documents:
        after = f" and {', '.join(steps)}" if steps else ""
        raise UserError(f"data.corpus: nothing is left to train on after the held-out text{after}")
    return {
        **drawn,
        "documents": {"train": packed.documents, **drawn["documents"]},
        "bytes": {"train": packed.bytes, **drawn["bytes"]},
        "tokens": {"train": packed.tokens, **drawn["tokens"]},
        "cleaning": cleaning.report(steps, packed.counts),
        "near_duplicate_documents": int((np.bincount(group)[group] > 1).sum()),
        "unreadable_documents": unreadable,
        "corpus_sha256": content_hash(index),
    }


def _read(spec: PrepareSpec, shuffled: Path, paths: list[Path], progress) -> tuple[np.ndarray, int]:
    """The index of all documents, and the count of those that are not text."""
    progress.say("reading documents")
    unreadable, most = 0, spec.corpus.max_bytes
    is_stream = spec.corpus.source == "hub"

    def readable() -> Iterator[Document]:
        nonlocal unreadable
        size = 0
        for doc in documents(spec.corpus, paths):
            if doc is None:
                unreadable += 1
                continue
            yield doc
            size += len(doc.text.encode())
            if is_stream and most and size >= most:
                return

    # of a stream the beginning is taken, for all of it may be too much; else a part from all over
    shuffle = Shuffle(shuffled, spec.seed, None if is_stream else most)
    next_told = 2**26
    for seen in shuffle.fill(readable(), process.threads()):
        if seen >= next_told:
            progress.say(f"{seen / 1e6:.0f} MB of text read")
            next_told *= 2
    index = shuffle.index()
    least = 1 if spec.held_out_of else 3
    if len(index) < least:
        raise UserError(
            f"data.corpus: holds {len(index)} documents with text ({unreadable} are not text); at "
            f"least {least} are needed" + " for training, validation and test" * (least == 3)
        )
    return index, unreadable


def _provide_tokenizer(
    spec: PrepareSpec, folder: Path, given: Path | None, training: Training, progress
) -> None:
    if spec.tokenizer is None:
        progress.say(f"training a tokenizer of {spec.vocab_size} ids")
        tokenizer.train(training_text.texts(training), spec.vocab_size, folder)
        return
    if given is None:
        from llama_bench.measure.text.hub import tokenizer_files

        given = tokenizer_files(spec.tokenizer)
    tokenizer.copy(given, folder)
    found = tokenizer.Encoder(folder).vocab_size
    if found != spec.vocab_size:
        raise UserError(
            f"data.vocab_size: {spec.vocab_size} does not fit data.tokenizer, which has {found} ids"
        )
