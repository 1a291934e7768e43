"""Where each tensor of a Hugging Face folder lies in its safetensors files; none is loaded.

A safetensors file is eight bytes that count those of a JSON header, the header, and the tensors'
bytes without a gap (huggingface.co/docs/safetensors). So a model can be read, and another written,
some kilobytes at a time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from llama_bench.records import Refusal

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class Stored:
    """One tensor: its type as safetensors names it, and its bytes' place in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    begin: int
    bytes: int


def files_of(folder: Path) -> list[Path]:
    """The files that hold a model's weights. Raises Refusal where there are none."""
    if (folder / INDEX).is_file():
        try:
            names = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise Refusal("refused", f"{folder / INDEX} is no index of weights") from error
        files = [folder / name for name in sorted(names)]
    else:
        files = [folder / WHOLE]
    for path in files:
        if not path.is_file():
            pickled = any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors"))
            why = "; its pickle is not read, which can run code: convert it" if pickled else ""
            raise Refusal("refused" if pickled else "missing", f"{path} is not there{why}")
    return files


def stored(folder: Path) -> dict[str, Stored]:
    """All tensors of a model by name. Raises Refusal for a damaged file."""
    found: dict[str, Stored] = {}
    for path in files_of(folder):
        found |= {each.name: each for each in of_file(path)}
    return found


def of_file(path: Path) -> list[Stored]:
    """The tensors of one file in the order of their bytes."""
    try:
        with safe_open(path, "pt"):  # checks sizes, types and that there is no gap
            head = header(path)
    except (SafetensorError, OSError) as error:
        raise Refusal("refused", f"{path} cannot be read: {error}") from error
    entries, tensors = json.loads(head[8:]), []
    entries.pop("__metadata__", None)
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        tensors.append(Stored(name, entry["dtype"], shape, path, len(head) + begin, end - begin))
    return tensors


def header(path: Path) -> bytes:
    """What stands before the tensors' bytes."""
    with open(path, "rb") as file:
        length = file.read(8)
        return length + file.read(int.from_bytes(length, "little"))
