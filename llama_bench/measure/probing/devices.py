"""The device that a measurement is about: found, compared with the one asked for, described.

What a number means depends on the very device (an H100 on PCIe has two thirds of the memory
bandwidth of the other one), so a study may name the GPU that has to be there, and the record says
which it was. What the device does not tell is None.
"""

from __future__ import annotations

from typing import Any

import psutil
import torch

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure.gpu import is_called
from llama_bench.measure.probing import instruments


def find(kind: str, name: str | None = None) -> torch.device:
    """The CPU, or the first GPU whose name holds the words of `name`; torch's current one then.

    Raises UserError where there is none.
    """
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"probe.device: {name or 'cuda'} is asked for, but torch sees no CUDA device here; "
            "set device: cpu, or install a torch with CUDA on a machine with a GPU"
        )
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    number = 0 if name is None else _matching(names, name)
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _matching(names: list[str], asked: str) -> int:
    """The place of the first GPU called so."""
    for number, name in enumerate(names):
        if is_called(name, asked):
            return number
    raise UserError(
        f"probe.device: {asked} is asked for, this machine has {', '.join(names)}; "
        "name one of them, or write cuda for the first"
    )


def facts(device: torch.device) -> dict[str, Any]:
    """What it is called and what it has; `driver`, clocks and `power_limit_watts` of a GPU where
    NVML is at hand, and the clock of a CPU where the system tells."""
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        name, memory_bytes = gpu.name, gpu.total_memory
    else:
        name, memory_bytes = records.processor(), psutil.virtual_memory().total
    return {
        "kind": device.type,
        "name": name,
        "memory_bytes": memory_bytes,
        "threads": torch.get_num_threads(),
        **instruments.of(device).facts(),
    }


def refuses(device: torch.device, precision: str) -> str | None:
    """Why the device cannot multiply in a precision; None where it can.

    A CPU computes bfloat16 in any case, if slowly; a GPU before Ampere would only imitate it.
    """
    if device.type == "cpu" or precision == "float32":
        return None
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return None
    return f"{torch.cuda.get_device_name(device)} has no bfloat16, which {precision} needs"


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
