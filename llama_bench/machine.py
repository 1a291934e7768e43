"""What this machine computes on, told from its device files: no torch, no time."""

from __future__ import annotations

import re
from pathlib import Path


def device() -> str:
    """`cuda` where an NVIDIA GPU's device file is, else `cpu`."""
    return "cuda" if gpus() or Path("/dev/dxg").exists() else "cpu"


def gpus() -> int:
    """NVIDIA GPUs that this machine shows."""
    return sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in Path("/dev").iterdir())
