"""What was found out about this machine once, kept for the runs to come.

One small file per fact below $XDG_CACHE_HOME/llama_bench/machine. The first to write a fact wins,
so that runs which start side by side go on alike. Where nothing can be written, a fact is found
out again by every run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from llama_bench import records


def cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "llama_bench"


def described(device: torch.device) -> dict[str, Any]:
    """What a measured speed depends on besides the work itself."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else records.processor()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def recall(subject: str, key: dict[str, Any]) -> Any:
    """The fact about `key`; None where it is not known, or its file is damaged."""
    try:
        return json.loads(_path(subject, key).read_text())["fact"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(subject: str, key: dict[str, Any], fact: Any) -> Any:
    """Write a fact down, unless another process was first; the fact that holds."""
    path = _path(subject, key)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(json.dumps({"key": key, "fact": fact}, indent=1))
            if recall(subject, key) is None:
                path.unlink(missing_ok=True)  # damaged, or not there
            os.link(aside, path)  # fails where it exists
        finally:
            aside.unlink(missing_ok=True)
    known = recall(subject, key)
    return fact if known is None else known


def _path(subject: str, key: dict[str, Any]) -> Path:
    text = json.dumps(key, sort_keys=True)
    return cache() / "machine" / f"{subject}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
