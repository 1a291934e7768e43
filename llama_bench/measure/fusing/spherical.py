"""Spherical interpolation of two models' weights, tensor by tensor.

Shoemake 1985 (Animating rotation with quaternion curves, section 3.3): with the angle w between two
directions, sin((1 - t) w) / sin w of the first and sin(t w) / sin w of the second, so that a tensor
half-way between two is as long as they are, where a straight mean is shorter. Where the directions
are nearly one, sin w tells nothing any more, and the shares are the straight ones.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path

import torch

from llama_bench.measure.fusing import weight_files
from llama_bench.measure.fusing.averaging import Blocks, Shares

NEARLY_PARALLEL = (
    0.9995  # cosine: 1.8 degrees, where both ways differ by less than a ten-thousandth
)


def shares(folders: list[Path], second: float = 0.5) -> Shares:
    """Of two models, the second with the share `second` of the angle."""
    tables = [weight_files.stored(folder) for folder in folders]

    def of_tensor(name: str) -> tuple[float, float]:
        cosine = _cosine([table[name] for table in tables])
        if cosine is None or abs(cosine) > NEARLY_PARALLEL:
            return 1 - second, second
        angle = math.acos(cosine)
        return tuple(math.sin(part * angle) / math.sin(angle) for part in (1 - second, second))

    return of_tensor


def _cosine(parts) -> float | None:
    """Of the angle between two tensors, in float64; None where one is zero."""
    product, squares = 0.0, [0.0, 0.0]
    with ExitStack() as stack:
        blocks = Blocks(stack, 2)
        pieces = [blocks.pieces(place, part) for place, part in enumerate(parts)]
        for a, b in zip(*pieces, strict=True):
            a, b = a.double(), b.double()
            product += torch.dot(a, b).item()
            squares = [squares[0] + torch.dot(a, a).item(), squares[1] + torch.dot(b, b).item()]
    length = math.sqrt(squares[0]) * math.sqrt(squares[1])
    if not length or not math.isfinite(length):
        return None
    return max(-1.0, min(1.0, product / length))
