"""Weights of 8 or 4 bits, multiplied in bfloat16, by torchao (the extra `quantized`).

Only the weights of linear layers are stored small (int8: one scale per row; int4: one per group of
columns); activations, embeddings and the key-value cache stay in bfloat16. This saves memory, and
the time of reading it, which is what decode is bound by.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch
from torch import nn

from llama_bench.measure import memory
from llama_bench.records import Refusal

PRECISIONS = ("int8", "int4")
_GROUPS = (128, 64, 32)  # columns that share a scale in int4


def refuses(precision: str, device: torch.device) -> str | None:
    """Why `precision` cannot be had here, found out on a small layer; None where it can."""
    try:
        metadata.version("torchao")
    except metadata.PackageNotFoundError:
        return f"{precision} needs torchao: pip install 'llama-bench[quantized]'"
    layer = nn.Sequential(nn.Linear(256, 256, bias=False, dtype=torch.bfloat16, device=device))
    try:
        shrink(layer, precision)
        with torch.inference_mode():
            layer(torch.ones(1, 256, dtype=torch.bfloat16, device=device))
    except Refusal as refusal:
        return refusal.reason
    return None


def shrink(model: nn.Module, precision: str, device: torch.device | None = None) -> None:
    """Store the weights of all linear layers in `precision`, in place; on `device`, which each of
    them enters by itself, so that there need be no room for all of them in bfloat16."""
    from torchao.quantization import quantize_

    device = device or next(model.parameters()).device
    try:
        quantize_(model, _configuration(model, precision, device), device=device)
        model.to(device)  # what is no linear layer
    except Exception as error:  # of many types, by what is missing: kernels, devices, formats
        if isinstance(error, Refusal) or memory.is_out_of_memory(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = f"torchao {metadata.version('torchao')} has no {precision} on {device.type}"
        raise Refusal("refused", f"{reason}: {first}") from error


def _configuration(model: nn.Module, precision: str, device: torch.device) -> Any:
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    if precision == "int8":
        return Int8WeightOnlyConfig()
    widths = {each.in_features for each in model.modules() if isinstance(each, nn.Linear)}
    fitting = [group for group in _GROUPS if not any(width % group for width in widths)]
    if not fitting:
        raise Refusal("refused", f"int4 needs widths in multiples of 32, not {sorted(widths)}")
    # on a GPU the layout of the kernel that comes with torch itself
    layout = {"int4_packing_format": "tile_packed_to_4d"} if device.type == "cuda" else {}
    return Int4WeightOnlyConfig(group_size=fitting[0], **layout)


def stored_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a weight as it is stored: of a quantized one its numbers, scales and offsets."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(stored_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes
