"""Which tasks there are, and in which version: of a folder of task files, and of lm-eval itself.

A task's version is its YAML's `metadata.version`. Names and versions are known before any job
starts, so that a study that asks for what is not there, or for a version that changed with
lm-eval's, is told so when it is read.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

Versions = dict[str, str | None]  # by the name of a task, group or tag; None where it has none

_NAME = re.compile(r"^(task|group|tag):[ \t]*[\"']?([\w.+/-]+)", re.MULTILINE)
_VERSION = re.compile(r"\bversion:[ \t]*[\"']?([\w.+-]+)")
_INCLUDE = re.compile(r"^include:[ \t]*[\"']?([^\s\"']+)", re.MULTILINE)

# the index reads 14,000 files, with what they include
_LIST = """
import json
from lm_eval.tasks import TaskManager
found = {}
for name, entry in TaskManager().task_index.items():
    about = (entry.cfg or {}).get("metadata") or {}
    version = about.get("version") if isinstance(about, dict) else None
    found[name] = None if version is None else str(version)
print(json.dumps(found, sort_keys=True))
"""


def in_folder(folder: Path) -> Versions:
    """Of the tasks and groups that a folder of YAML files defines."""
    found: Versions = {}
    for path in sorted(folder.rglob("*.y*ml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for kind, name in _NAME.findall(text):
            found[name] = None if kind == "tag" else _version(path, text)
    return found


def _version(path: Path, text: str, depth: int = 8) -> str | None:
    """Its own, else that of what it includes."""
    own = _VERSION.search(text)
    if own:
        return own[1]
    included = _INCLUDE.search(text)
    below = path.parent / included[1] if included else None
    if not depth or below is None or not below.is_file():
        return None
    return _version(below, below.read_text(encoding="utf-8", errors="replace"), depth - 1)


def of_lm_eval() -> Versions:
    """Of all that the installed lm-eval knows; asked once per version, then kept.

    Its index takes 11 s, so only a study that names such a task asks for it.
    """
    try:
        installed = metadata.version("lm-eval")
    except metadata.PackageNotFoundError:
        raise ValueError("lm-eval is not installed; pip install -e .") from None
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "llama_bench" / f"lm-eval-{installed}-task-versions.json"
    try:
        return dict(json.loads(cache.read_text()))
    except (OSError, ValueError):
        pass
    print(f"listing the tasks of lm-eval {installed} (once, about 15 s)", file=sys.stderr)
    asked = subprocess.run(
        [sys.executable, "-c", _LIST], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"lm-eval's task list cannot be read: {last}")
    listed = asked.stdout.strip().splitlines()[-1]
    cache.parent.mkdir(parents=True, exist_ok=True)
    aside = cache.with_name(f".{cache.name}.{os.getpid()}")
    aside.write_text(listed)
    os.replace(aside, cache)
    return dict(json.loads(listed))


def changed(pinned: dict[str, object], known: Versions) -> str | None:
    """What a study is told whose tasks are not in the versions that it pins; None where all are.

    Versions are compared as text, but 1 is 1.0.
    """
    for name, wanted in pinned.items():
        if name not in known:
            return f"{name}: is no task of this suite; leave it out of versions"
        version = known[name]
        if version is None:
            return f"{name}: its task file tells no version; leave it out of versions"
        if _plain(version) != _plain(str(wanted)):
            return (
                f"{name}: is here in version {version}, the study pins {wanted}; install the "
                "lm-eval that has it, or raise the pin and evaluate again"
            )
    return None


def _plain(version: str) -> str:
    return re.sub(r"\.0$", "", version)
