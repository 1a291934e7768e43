"""Snakemake's marks of jobs that it lost sight of, where the job has ended well all the same.

A snakemake that is told to stop lets its jobs go on, and marks what they make as incomplete. A
record is written whole or not at all, so one that is there is complete whatever the mark says;
snakemake would take it away and make it again, without the inputs that a finished run has no more.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from pathlib import Path

MARKS = Path(".snakemake/incomplete")


def forget_finished(records: set[str]) -> None:
    """Take away the marks of those of `records` that are there."""
    for mark in [*MARKS.rglob("*")] if MARKS.is_dir() else []:
        if not mark.is_file():
            continue
        # a long name lies in folders, each with a part of it after an @
        coded = "".join(part.removeprefix("@") for part in mark.relative_to(MARKS).parts)
        try:
            named = urlsafe_b64decode(coded).decode()
        except ValueError:
            continue
        if named in records and Path(named).exists():
            mark.unlink(missing_ok=True)
