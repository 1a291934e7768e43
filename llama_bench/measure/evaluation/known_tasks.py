"""lm-eval's own tasks, known without reading them all.

Its index is built from 14,000 files, which takes longer than many a suite; it is made once and kept
(task_index.py), and only the files of what is asked are read then.
"""

from __future__ import annotations

from pathlib import Path

import lm_eval.tasks
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind

from llama_bench import task_index

_TOP = Path(lm_eval.tasks.__file__).parent


def manager(wanted: list[str], folders: list[Path]) -> TaskManager:
    """Of the tasks in `folders`, and of lm-eval's own where one is wanted, or may stand in a group
    of the folders. What is in a folder goes before lm-eval's of the same name."""
    known = TaskManager(include_path=[str(path) for path in folders], include_defaults=False)
    if known.all_groups or not set(wanted) <= set(known.task_index):
        for name, kept in task_index.index_of_lm_eval().items():
            path = kept["path"] and _TOP / kept["path"]
            entry = Entry(name, Kind[kept["kind"]], path, tags=set(kept["tags"]))
            known.task_index.setdefault(name, entry)
    return known
