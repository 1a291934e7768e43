"""Small corpora, prepared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from llama_bench.measure import prepare
from llama_bench.records import Record
from llama_bench.specs import Corpus, PrepareSpec


class Silent:
    def __call__(self, *_):
        pass

    say = __call__


def files(paths: list[Path], **fields) -> Corpus:
    return Corpus(source="files", files=tuple("0" * 16 for _ in paths), **fields)


def run(folder: Path, paths: list[Path], text_key: str | None = None, **fields) -> dict:
    """What `prepare` finds in files of text; the folder is made, a record left in it."""
    own = {} if "held_out_of" in fields else {"vocab_size": 300, "held_out": 0.1}
    corpus = fields.pop("corpus", None) or files(paths, text_key=text_key)
    before, after = fields.pop("base", []), fields.pop("tokenizer_folder", [])
    spec = PrepareSpec(corpus=corpus, **{**own, **fields})
    folder.mkdir(exist_ok=True)
    result = prepare.run(spec, folder, [*before, *paths, *after], Silent())
    record = Record(
        id=spec.id, verb="prepare", spec=spec.model_dump(), seconds={}, provenance={}, result=result
    )
    record.write(folder / "record.json")
    return result


def prose(count: int, words: int = 200, seed: int = 0) -> list[str]:
    """Documents of random words, none near another."""
    rng = np.random.Generator(np.random.PCG64(seed))
    known = [f"word{'abcdefgh'[n % 8]}{n}" for n in range(500)]
    return [
        "\n".join(" ".join(line) for line in rng.choice(known, (words // 10, 10)))
        for _ in range(count)
    ]


def jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All that `prepare` leaves, but for the record."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "record.json"
    }
