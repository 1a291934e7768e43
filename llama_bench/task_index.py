"""Which tasks there are, and in which version: of a folder of task files, and of lm-eval itself.

A task's version is its YAML's `metadata.version`. Names and versions are known before any job
starts, so that a study that asks for what is not there, or for a version that changed with
lm-eval's, is told so when it is read. A job that is asked lm-eval's own tasks takes them from here
too: reading all their files takes longer than many an evaluation.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

Versions = dict[str, str | None]  # by the name of a task, group or tag; None where it has none
# by name: `version`, `kind` (lm-eval's word for it), `path` of its file below lm-eval's tasks
# (None for a tag), `tags` (a task's own; of a tag the tasks that it stands for)
Index = dict[str, dict[str, Any]]

# the index reads 14,000 files, with what they include
_LIST = """
import json
from pathlib import Path
import lm_eval.tasks
top = Path(lm_eval.tasks.__file__).parent
found = {}
for name, entry in lm_eval.tasks.TaskManager().task_index.items():
    about = (entry.cfg or {}).get("metadata") or {}
    version = about.get("version") if isinstance(about, dict) else None
    found[name] = {
        "version": None if version is None else str(version),
        "kind": entry.kind.name,
        "path": entry.yaml_path and str(entry.yaml_path.relative_to(top)),
        "tags": sorted(entry.tags),
    }
print(json.dumps(found, sort_keys=True))
"""


_OF_FILES = ("json", "csv", "parquet", "text", "arrow")  # `dataset_path`s that read `data_files`


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Of task files, which name functions: none is looked for."""


_Loader.add_constructor("!function", lambda loader, node: None)


def in_folder(folder: Path, asked: tuple[str, ...] = ()) -> Versions:
    """Of the tasks, groups and tags that a folder of YAML files defines, as lm-eval reads them.

    Raises ValueError for a file that is no YAML, or includes what is not there: lm-eval would pass
    over it without a word; and where the data of a task that is `asked` are not there.
    """
    found: Versions = {}
    contents = {path: _read(path, ()) for path in sorted(folder.rglob("*.yaml"))}
    _check_data(contents, {*asked})
    for content in contents.values():
        name = content.get("group", content.get("task"))
        if isinstance(name, str):
            about = content.get("metadata")
            version = about.get("version") if isinstance(about, dict) else None
            found[name] = None if version is None else str(version)
        if "group" not in content:
            tags = content.get("tag") or []
            found |= dict.fromkeys([tags] if isinstance(tags, str) else tags)
    return found


def _names(given: Any) -> set[str]:
    """What stands alone or in a list; of what a group lists under `task`, names."""
    if isinstance(given, dict):
        return _names(given.get("group")) | _names(given.get("task"))
    if isinstance(given, list):
        return {name for each in given for name in _names(each)}
    return {given} if isinstance(given, str) else set()


def _check_data(contents: dict[Path, dict[str, Any]], asked: set[str]) -> None:
    """Raises ValueError for data files that are not where the `datasets` library looks for them:
    where a path is relative, below the directory that the study is run in."""
    reached, before = set(asked), -1
    while len(reached) > before:  # groups of groups
        before = len(reached)
        for content in contents.values():
            if reached & (_names(content.get("group")) | _names(content.get("tag"))):
                reached |= _names(content.get("task"))
    for path, content in contents.items():
        kwargs = content.get("dataset_kwargs")
        if content.get("dataset_path") in _OF_FILES and isinstance(kwargs, dict):
            top = Path(str(kwargs.get("data_dir") or "")).expanduser()
            named = kwargs.get("data_files")
            named = [*named.values()] if isinstance(named, dict) else named
            lacking = [name for name in _names(named) if not _is_there(top, name)]
            if lacking and reached & _names(content.get("task")):
                raise ValueError(
                    f"{path}: dataset_kwargs.data_files: {top / lacking[0]} is not there; write "
                    f"the whole path, or the one from the study's directory ({Path.cwd()})"
                )


def _is_there(top: Path, name: str) -> bool:
    """What is a pattern or an address is not looked for."""
    return "://" in name or bool(set(name) & set("*?[")) or (top / name).exists()


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A task file with what it includes, of which its own keys replace the like."""
    if path in above:
        raise ValueError(f"{path} includes itself; leave that include out")
    try:
        content = yaml.load(path.read_bytes(), Loader=_Loader)  # a safe loader's child
    except FileNotFoundError:
        raise ValueError(f"{above[-1]} includes {path}, which is not there") from None
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        return {}
    included = content.pop("include", None) or []
    merged: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        merged |= _read((path.parent / name).resolve(), (*above, path))
    return merged | content


def of_lm_eval() -> Versions:
    """Of all that the installed lm-eval knows."""
    return {name: entry["version"] for name, entry in index_of_lm_eval().items()}


def index_of_lm_eval() -> Index:
    """All that the installed lm-eval knows; asked once per version, then kept.

    Its own index takes 11 s, so only who names such a task asks for it. Raises ValueError.
    """
    try:
        installed = metadata.version("lm-eval")
    except metadata.PackageNotFoundError:
        raise ValueError("lm-eval is not installed; pip install -e .") from None
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "llama_bench" / f"lm-eval-{installed}-tasks.json"
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
    with contextlib.suppress(OSError):  # nowhere to keep it: listed again the next time
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
