"""How many operations a second this device reaches in matrix products: what MFU is a share of.

Model FLOPs utilisation (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) needs a denominator;
the vendor's is reached by nobody, and on a CPU with some of its threads there is none. So one large
square product is timed, in the precision of the training. The fastest repeat counts: others lost
time to something else.
"""

from __future__ import annotations

import time

import torch

from llama_bench.measure.training import machine_facts

SECONDS = 0.2
WIDTH_ON_CPU, WIDTH_ON_GPU = 1024, 8192


def matrix_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measured once per machine, precision and threads."""
    key = machine_facts.described(device) | {"dtype": str(dtype)}
    known = machine_facts.recall("matrix-product", key)
    return known or machine_facts.keep("matrix-product", key, _measured(device, dtype))


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    width = WIDTH_ON_GPU if device.type == "cuda" else WIDTH_ON_CPU
    left, right = (torch.randn(width, width).to(device, dtype) for _ in range(2))
    out = torch.empty_like(left)
    seconds = []
    began = time.perf_counter()
    while len(seconds) < 3 or time.perf_counter() - began < SECONDS:
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * width**3 / min(seconds)
