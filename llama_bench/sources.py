"""What a study refers to outside of itself, made into identities: corpora, models, tasks.

A path says where something lies, not what it is; so a path never stands in a spec. Its content's
digest does, and a run's folder can go to another machine with other paths. Only what the study
needs before any job starts is read here, in milliseconds, without torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Protocol

from llama_bench.fields import UserError, unknown
from llama_bench.shape import Shape
from llama_bench.specs import Corpus
from llama_bench.text_files import KINDS, check_head, kind

NAMED = ("python-stdlib", "python-packages")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)


class Dataset(Protocol):
    """A dataset on the Hub as config.yaml names it; `repo` may be a local folder."""

    repo: str
    revision: str | None
    subset: str | None
    split: str | None


def corpus(given: str | list[str] | Dataset, text_key: str, max_bytes: int | None) -> Corpus:
    """The corpus that config.yaml names. Raises ValueError naming the file and what is wrong."""
    if not isinstance(given, (str, list)):
        return _hub_corpus(given, text_key, max_bytes)
    if given == "python-stdlib":
        version = platform.python_version()
        return Corpus(source="python-stdlib", version=version, max_bytes=max_bytes)
    if given == "python-packages":
        installed = sorted({f"{d.name}=={d.version}" for d in metadata.distributions()})
        version = hashlib.sha256("\n".join(installed).encode()).hexdigest()[:8]
        return Corpus(source="python-packages", version=version, max_bytes=max_bytes)
    paths = corpus_files(given)
    for path in paths:
        check_head(path, text_key)
    keyed = any(kind(path) in (".jsonl", ".parquet") for path in paths)
    return Corpus(
        source="files",
        files=tuple(file_digest(path) for path in paths),
        text_key=text_key if keyed else None,
        max_bytes=max_bytes,
    )


def _hub_corpus(given: Dataset, text_key: str, max_bytes: int | None) -> Corpus:
    folder = corpus_files(given)
    return Corpus(
        source="hub",
        version=_tree_digest(folder[0]) if folder else None,
        repo=folder[0].name if folder else given.repo,
        revision=given.revision,
        subset=given.subset,
        split=given.split,
        text_key=text_key,
        max_bytes=max_bytes,
    )


def corpus_files(given: str | list[str] | Dataset) -> list[Path]:
    """The files of a corpus, folders opened, in a fixed order; none for a named corpus.

    Of a dataset: its folder, if it is a local one, and otherwise none.
    """
    if not isinstance(given, (str, list)):
        folder = Path(given.repo).expanduser()
        return [folder.resolve()] if given.revision is None and folder.is_dir() else []
    if given in NAMED:
        return []
    paths: list[Path] = []
    for item in [given] if isinstance(given, str) else given:
        path = Path(item).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if kind(p) in KINDS and p.is_file())
            if not inside:
                raise ValueError(f"{item} is a folder without {', '.join(KINDS)} files")
            paths += inside
        elif path.is_file():
            paths.append(path)
        elif os.sep in item or "." in item:
            raise ValueError(f"{item} is not there")
        else:
            raise ValueError(unknown(item, [*NAMED], "corpus") + ", or the path of a file")
    if not paths:
        raise ValueError("names no file; give python-stdlib, python-packages or paths")
    return paths


def shape_digest(folder: Path) -> str:
    """Identity of a local model's shape. Raises ValueError where the folder has none."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"path: {folder} holds no model (no config.json)")
    return file_digest(folder / "config.json")


def model_digest(folder: Path) -> str:
    """Identity of a local model. Raises ValueError where the folder holds none."""
    if not folder.is_dir():
        raise ValueError(f"path: {folder} is no folder")
    if not (folder / "config.json").is_file():
        raise ValueError(f"path: {folder} holds no model (no config.json)")
    weights = [*folder.glob("*.safetensors")]
    if not weights:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise ValueError(
            f"path: {folder} holds no weights that can be loaded (no *.safetensors"
            + (
                "; a pickle may run code of its own and is refused: convert it first)" * pickled
                or ")"
            )
        )
    parts = sorted({*folder.glob("*.json"), *folder.glob("*.model"), *weights})
    return _digest(f"{part.name}:{file_digest(part)}".encode() for part in parts)


@lru_cache(maxsize=4096)
def file_digest(path: Path) -> str:
    """Of the whole content up to 64 MB; beyond that of the length and 64 MB spread evenly."""
    size, whole, blocks = path.stat().st_size, 64 * 2**20, 64
    with open(path, "rb") as file:
        if size <= whole:
            return _digest([file.read()])
        chunks = [str(size).encode()]
        for index in range(blocks):
            file.seek(index * (size - 2**20) // (blocks - 1))
            chunks.append(file.read(2**20))
        return _digest(chunks)


def folder_digest(folder: Path) -> str:
    """Of all task files in a folder. Raises ValueError where there is no such folder."""
    if not folder.is_dir():
        raise ValueError(f"include: {folder} is no folder")
    return _tree_digest(folder)


def _tree_digest(folder: Path) -> str:
    parts = sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return _digest(f"{p.relative_to(folder)}:{file_digest(p)}".encode() for p in parts)


def tokenizer_digest(folder: Path) -> str:
    """Of a local tokenizer's own files; a model's beside them are not part of it.

    Raises ValueError where there is no tokenizer.json.
    """
    _tokenizer_json(folder)
    parts = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return _digest(f"{part.name}:{file_digest(part)}".encode() for part in parts)


def tokenizer_size(folder: Path) -> int:
    """Number of ids: the largest and one. Raises ValueError where tokenizer.json tells none."""
    path = _tokenizer_json(folder)
    try:
        content = json.loads(path.read_bytes())
        vocabulary = content["model"]["vocab"]
        ids = list(vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary)))
        return 1 + max(ids + [token["id"] for token in content.get("added_tokens") or []])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no tokenizer of the tokenizers library") from None


def same_tokenizer(first: Path, second: Path) -> bool:
    """Whether two folders hold tokenizers that split every text into the same ids. How batches are
    cut and padded is no part of that. Raises UserError where one holds none."""
    return _splitting(first) == _splitting(second)


def _splitting(folder: Path) -> dict:
    path = folder / "tokenizer.json"
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a tokenizer ({error})") from None
    return {key: content[key] for key in content if key not in ("truncation", "padding")}


def llama_shape(folder: Path) -> tuple[Shape, int] | None:
    """Shape and number of ids of a local model, if it is a Llama as `Shape` has them."""
    try:
        given = json.loads((folder / "config.json").read_bytes())
        heads = given["num_attention_heads"]
        shape = Shape(
            layers=given["num_hidden_layers"],
            width=given["hidden_size"],
            heads=heads,
            kv_heads=given.get("num_key_value_heads") or heads,
            ffn_width=given["intermediate_size"],
            tied_embeddings=bool(given.get("tie_word_embeddings")),
        )
        vocab_size = int(given["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    biased = given.get("attention_bias") or given.get("mlp_bias")
    other = given.get("model_type") != "llama" or biased
    own_heads = given.get("head_dim") not in (None, shape.head_size)
    return None if other or own_heads else (shape, vocab_size)


def _tokenizer_json(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no tokenizer (no tokenizer.json)")
    return path


def _digest(chunks) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()[:16]
