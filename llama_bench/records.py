"""What a run leaves behind: one record.json, written last, whole or not at all.

A record is spec + provenance + result. What is a result, good or bad, has a record: `status` says
which, `reason` says why. What is an accident leaves none and is tried again. So a record that
exists is complete, and nothing that reads one needs to ask.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from llama_bench.fields import UserError

Status = Literal["ok", "out-of-memory", "diverged", "non-finite", "refused", "missing", "skipped"]


class Refusal(Exception):
    """A result that is not a number: raised by a step, kept as the record's status and reason."""

    def __init__(self, status: Status, reason: str, result: dict[str, Any] | None = None):
        super().__init__(reason)
        self.status, self.reason, self.result = status, reason, result or {}


class Record(BaseModel):
    """One finished run. `seconds` holds `startup` (process start to first useful work) and
    `total`; `result` is the verb's own (docs/protocol.md lists its keys and units)."""

    model_config = ConfigDict(extra="forbid")
    format: int = 1
    id: str
    verb: str
    status: Status = "ok"
    reason: str | None = None
    spec: dict[str, Any]
    seconds: dict[str, float]
    provenance: dict[str, Any]
    result: dict[str, Any]

    def write(self, path: Path) -> None:
        write_text(path, json.dumps(finite(self.model_dump(mode="json")), indent=1) + "\n")


def read(path: Path) -> Record:
    """Raises UserError naming the file, where it is missing or no record."""
    try:
        return Record.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{path}: is no record of this project, or not all of one ({first}); delete its folder "
            "to make it again"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Whole or not at all: written aside, flushed to disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """The same value with None for every NaN and infinity: missing is missing."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


_PACKAGES = ("llama-bench", "torch", "transformers", "tokenizers", "lm-eval", "numpy")


def provenance(threads: int, began: float) -> dict[str, Any]:
    """When, where and with what a run was carried out: nothing here is part of its identity.

    `began` is the process's start in seconds since 1970, so that the report can lay the jobs of a
    study side by side.
    """
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "began": began,
        "python": platform.python_version(),
        "packages": versions,
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory_bytes": _memory_bytes(),
        },
        "threads": threads,
        "git": _git_state(),
        "command": sys.argv[1:],
    }


def processor() -> str | None:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit of this package's checkout and whether it was changed; None outside of git."""

    def git(*words: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "-uno")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
