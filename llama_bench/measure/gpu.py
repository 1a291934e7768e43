"""GPUs of one's own: each process claims free ones before torch is imported.

Jobs that run side by side must not share a GPU: their times would be worthless, and the memory of
one would depend on the other. A claim is a lock on a file per GPU (flock(2)), which the kernel
drops with the process, however it ends; CUDA_VISIBLE_DEVICES then shows torch those GPUs alone.
Who needs several takes all or none, so that no two wait for what the other one holds.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
import time
from typing import NamedTuple

from llama_bench.fields import UserError

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
WANTED = "LLAMA_BENCH_GPUS"  # stands before a command that takes several

_claimed: list[int] = []  # open files, which hold their locks until the process ends


class Gpu(NamedTuple):
    """What CUDA is told to show it by; what its lock is called; its name, None where not known."""

    shown_by: str
    key: str
    name: str | None


def wanted() -> int:
    """How many GPUs this command takes. Raises UserError."""
    text = os.environ.get(WANTED, "1")
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"{WANTED}={text}: is no number of GPUs; give a whole one, or leave it out")
    return int(text)


def claim(say, named: str | None = None, count: int = 1) -> str | None:
    """The `count` GPUs, called `named`, that this process uses from now on, as CUDA lists them;
    waits for them. None where nothing is chosen: the machine has no GPU, the scheduler has shown
    this process just one (or hidden all), or none is called so, which who looks for it will say.

    Raises UserError where there are fewer than `count`.
    """
    if _claimed:
        return os.environ[VISIBLE]
    visible = gpus()
    fitting = [gpu for gpu in visible if not (named and gpu.name) or is_called(gpu.name, named)]
    if not fitting:
        return None
    if len(fitting) < count:
        raise UserError(f"{count} GPUs are asked for, this process sees {len(fitting)}; lower gpus")
    if len(visible) == 1 and VISIBLE in os.environ:
        return None
    told = False
    while len(chosen := _locked(fitting, count)) < count:
        if not told:
            taken = len(fitting) - len(chosen)
            say(f"{taken} of {len(fitting)} GPUs are taken by other jobs; waits for {count}")
            told = True
        time.sleep(1)
    os.environ[ORDER] = os.environ.get(ORDER, "PCI_BUS_ID")  # an index means what it meant here
    os.environ[VISIBLE] = ",".join(gpu.shown_by for gpu in chosen)
    return os.environ[VISIBLE]


def gpus() -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES lists, else all that the driver shows."""
    told = _told_by_driver()
    listed = os.environ.get(VISIBLE)
    if listed is None:
        return [Gpu(uuid, uuid, name) for _, uuid, name in told]
    found = []
    for word in (word.strip() for word in listed.split(",")):
        if word and word != "-1":
            known = [each for each in told if _means(word, *each[:2])]
            _, key, name = known[0] if len(known) == 1 else (None, word, None)
            found.append(Gpu(word, key, name))
    return found


def _means(word: str, index: str, uuid: str) -> bool:
    """Whether a word of CUDA_VISIBLE_DEVICES is this GPU: by its index, or its UUID's beginning.

    The driver counts as the PCI bus does, and CUDA only if it is told to."""
    if word.isdigit():
        return word == index and os.environ.get(ORDER, "PCI_BUS_ID") == "PCI_BUS_ID"
    return uuid.startswith(word)


def _told_by_driver() -> list[list[str]]:
    """(index, UUID, name) of each."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",", 2)] for line in shown.stdout.splitlines()]
    return [row for row in rows if len(row) == 3]


def is_called(name: str, asked: str) -> bool:
    """Whether the words asked for are whole words of the name, in any case: "H100" is in "NVIDIA
    H100 PCIe", "A10" not in "NVIDIA A100"."""
    words = r"[\s_-]+".join(map(re.escape, asked.split()))
    return re.search(rf"(?<![A-Za-z0-9]){words}(?![A-Za-z0-9])", name, re.IGNORECASE) is not None


def _locked(fitting: list[Gpu], count: int) -> list[Gpu]:
    """The first `count` that are free, which are this process's then; fewer are left alone.

    One process at a time tries, so that two cannot keep each other from all that they need.
    """
    trying = _opened("gpus")
    fcntl.flock(trying, fcntl.LOCK_EX)
    free: dict[int, Gpu] = {}
    try:
        for gpu in fitting:
            if len(free) < count and (number := _lock(gpu.key)) is not None:
                free[number] = gpu
        if len(free) == count:
            _claimed.extend(free)
    finally:
        os.close(trying)
        for number in free.keys() - _claimed:
            os.close(number)
    return [*free.values()]


def _lock(key: str) -> int | None:
    number = _opened(f"gpu-{key.replace('/', '-')}")
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number


def _opened(name: str) -> int:
    path = os.path.join(tempfile.gettempdir(), f"llama_bench-{name}.lock")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's file: a lock needs no more than reading
        return os.open(path, os.O_RDONLY)
