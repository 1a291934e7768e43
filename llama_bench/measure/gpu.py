"""A GPU of one's own: each process claims a free one before torch is imported.

Jobs that run side by side must not share a GPU: their times would be worthless, and the memory of
one would depend on the other. A claim is a lock on a file per GPU (flock(2)), which the kernel
drops with the process, however it ends; CUDA_VISIBLE_DEVICES then shows torch that GPU alone.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from pathlib import Path

_claimed: list[int] = []  # open files, which hold their locks until the process ends


def claim(say) -> str | None:
    """The GPU that this process uses from now on, None where there is none to choose from: the
    machine has none, or the scheduler has shown this process just one (or hidden all)."""
    if _claimed:
        return os.environ["CUDA_VISIBLE_DEVICES"]
    visible = gpus()
    if not visible or (len(visible) == 1 and "CUDA_VISIBLE_DEVICES" in os.environ):
        return None
    told = False
    while True:
        for gpu in visible:
            if _locked(gpu):
                os.environ["CUDA_VISIBLE_DEVICES"] = gpu
                return gpu
        if not told:
            say(f"all {len(visible)} GPUs are taken by other jobs; waits for one")
            told = True
        time.sleep(1)


def gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES lists, else the identifiers of all that the driver shows."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        try:
            shown = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return []
        listed = shown.stdout.replace("\n", ",")
    names = [name.strip() for name in listed.split(",")]
    return [name for name in names if name and name != "-1"]


def _locked(gpu: str) -> bool:
    path = Path(tempfile.gettempdir()) / f"llama_bench-gpu-{gpu.replace('/', '-')}.lock"
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's file: a lock needs no more than reading
        number = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return False
    _claimed.append(number)
    return True
