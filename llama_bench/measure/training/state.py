"""The state of a training: all that a resumed run needs to equal one that was never stopped.

Weights, AdamW's moments, the running mean of the weights, the step, and the losses so far; the
position in the data follows from the step (tokens.py), and nothing else is drawn at random. How the
run is carried out, as far as it moves the last digits, is kept too. Tensors are whole, whatever
number of processes they were spread over. A state is written aside and renamed, and the one before
it is kept: a damaged file is recognised by its checksum, and the one before is used.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from llama_bench.fields import UserError

NEWEST, BEFORE = "state.pt", "state.before.pt"


@dataclass
class State:
    """`losses` are of every step so far (nats per token); `began` is this run's own first step,
    `continued_from` the id of the run whose trunk it went on from; `trunk_loss` and `averaged_loss`
    are held-out losses where the branch left its trunk, of the weights and of their mean."""

    trunk: str
    step: int = 0
    began: int = 0
    continued_from: str | None = None
    losses: list[float] = field(default_factory=list)
    trunk_loss: float | None = None
    averaged_loss: float | None = None
    compiled: bool | None = None
    micro_batch: int | None = None
    checkpointed: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)


def save(state: State, path: Path, keep_as: Path | None = None) -> None:
    """Whole or not at all: a checksum, then the content. What was there before is kept as
    `keep_as`, and lost only once the new one is complete."""
    buffer = io.BytesIO()
    torch.save(vars(state), buffer)
    content = buffer.getbuffer()
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(aside, "wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep_as and path.exists():
            os.replace(path, keep_as)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def save_newest(state: State, folder: Path) -> None:
    save(state, folder / NEWEST, keep_as=folder / BEFORE)


@contextmanager
def full_disk_told(folder: Path):
    """A disk that fills is the user's to free: one message instead of a traceback."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors tells the system's own error by its number, in text
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        number = getattr(error, "errno", None)
        if number not in full and not any(f"os error {code}" in str(error) for code in full):
            raise
        raise UserError(
            f"{folder}: cannot be written to, for the disk is full or a quota reached; free some "
            "space and start again: the training goes on from the last state that was saved"
        ) from None


def load(path: Path, trunk: str, kind: type[State] = State) -> State | None:
    """None where there is none, it is damaged, or of another trunk; the last two are said."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        print(f"{path} is damaged and left aside", file=sys.stderr)
        return None
    state = kind(**torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True))
    if state.trunk != trunk:
        print(f"{path} belongs to another trunk and is left aside", file=sys.stderr)
        return None
    return state


def load_newest(folder: Path, trunk: str, kind: type[State] = State) -> State | None:
    return load(folder / NEWEST, trunk, kind) or load(folder / BEFORE, trunk, kind)


def forget(folder: Path) -> None:
    """A finished run needs its resume states no more."""
    for name in (NEWEST, BEFORE):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def stop_requests():
    """SIGTERM and SIGINT become a question that is asked between two steps: `stop()`."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: asked.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
