"""What this device can do: the rates that a model's work is held against.

Two limits bound a transformer (Williams et al. 2009, the roofline): arithmetic, reached by large
matrix products, and the memory's bandwidth, reached by a large copy. A third, the time of the
smallest operation, bounds small models. They are warmed up, repeated and timed as a probe is. The
fastest repeat counts, as in STREAM (McCalpin 1995): a limit is what the device can do, and whatever
else runs on it only takes away; all repeats are kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

from llama_bench.measure import memory
from llama_bench.measure.probing import devices, instruments, timing, vendor
from llama_bench.records import Refusal
from llama_bench.specs import LimitsSpec

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LONG_ENOUGH = 0.01  # seconds that one repeat should take at least
REPEATS = 10
SECONDS = 0.3
LAUNCHES = 1000  # in one repeat: one alone is shorter than a clock can tell
_LARGEST_WIDTH = 32_768


class Product:
    """A square matrix product: 2 x width^3 floating-point operations."""

    def __init__(self, width: int, dtype: torch.dtype, device: torch.device):
        self.operations = 2 * width**3
        self.shape = [width, width, width]
        # random numbers: a GPU takes less power, and so runs faster, on zeros
        self._left, self._right = (
            torch.randn(width, width, device=device).to(dtype) for _ in range(2)
        )
        self._out = torch.empty(width, width, dtype=dtype, device=device)

    def prepare(self) -> None:
        pass

    def work(self) -> None:
        torch.mm(self._left, self._right, out=self._out)


class Copy:
    """One block of memory to another: every byte is read once and written once."""

    def __init__(self, size: int, device: torch.device):
        self.bytes_moved = 2 * size
        self._from = torch.ones(size, dtype=torch.uint8, device=device)
        self._to = torch.ones(size, dtype=torch.uint8, device=device)

    def prepare(self) -> None:
        pass

    def work(self) -> None:
        self._to.copy_(self._from)


class Launches:
    """The smallest operation, many times one after the other."""

    def __init__(self, device: torch.device):
        self._number = torch.zeros(1, device=device)

    def prepare(self) -> None:
        pass

    def work(self) -> None:
        for _ in range(LAUNCHES):
            self._number.add_(1)


@torch.inference_mode()
def run(spec: LimitsSpec, folder: Path, inputs: list[Path], progress) -> dict[str, Any]:
    """Raises UserError where the device asked for is not there, Refusal where it lacks the
    precision."""
    device = devices.find(spec.device, spec.device_name)
    lacks = devices.refuses(device, spec.precision)
    if lacks:
        raise Refusal("refused", lacks)
    torch.set_float32_matmul_precision("highest")  # float32 is float32, not TF32
    facts = devices.facts(device)
    progress(0, 3, "matrix product")
    product = _long_enough(lambda width: Product(width, DTYPES[spec.precision], device), device)
    matrix = _timed(product, device) | {"shape": product.shape}
    operations = product.operations
    del product  # its memory is wanted for the copy
    progress(1, 3, "copy")
    moved = Copy(_copy_size(device), device)
    copy = _timed(moved, device) | {"bytes_moved": moved.bytes_moved}
    progress(2, 3, "launch")
    launch = _timed(Launches(device), device) | {"launches": LAUNCHES}
    progress(3, 3, "measured")
    return {
        "device": facts,
        "matrix_flops_per_second": operations / _fastest(matrix),
        "copy_bytes_per_second": copy["bytes_moved"] / _fastest(copy),
        "launch_seconds": _fastest(launch) / LAUNCHES,
        "vendor": vendor.peaks(facts["name"], spec.precision),
        "matrix": matrix,
        "copy": copy,
        "launch": launch,
    }


def _timed(work: timing.Work, device: torch.device) -> dict[str, Any]:
    return timing.measure(work, device, instruments.of(device), REPEATS, SECONDS)


def _fastest(timed: dict[str, Any]) -> float:
    return min(timed["seconds"])


def _long_enough(make, device: torch.device) -> Product:
    """The width is doubled until one product lasts, or the device's memory says stop."""
    width = 256
    while True:
        product = make(width)
        seconds = min(timing.once(product, device) for _ in range(2))
        if seconds >= LONG_ENOUGH or width >= _LARGEST_WIDTH or not _room(width, device):
            return product
        width *= 2


def _room(width: int, device: torch.device) -> bool:
    """Whether three matrices of twice the width take less than half of what is free."""
    return 4 * width**2 * 4 * 4 < _free_bytes(device) / 2


def _copy_size(device: torch.device) -> int:
    """Bytes: well above any cache, and an eighth of what is free at most."""
    wanted = 2**32 if device.type == "cuda" else 2**28
    return min(wanted, _free_bytes(device) // 8)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    room = memory.available_bytes()
    return psutil.virtual_memory().available if room is None else room
