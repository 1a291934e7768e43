"""One training on one or several devices: alone, DDP, or FSDP2 where one device is too small.

Every process takes its rows of the same global batch, and a step's gradient is that of the whole
batch's mean, so the number of processes moves a result by rounding alone. DDP (Li et al. 2020,
arXiv 2006.15704) keeps all weights everywhere; FSDP (Zhao et al. 2023, arXiv 2304.11277) keeps a
share of weights, gradients and moments on each device, and gathers a layer's when it is needed.
What leaves this module, states and checkpoints, is whole: it tells nothing of how it was made.
"""

from __future__ import annotations

import contextlib
import os
from typing import Literal

import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from llama_bench.fields import UserError
from llama_bench.measure.training import world
from llama_bench.measure.training.objective import Objective

Strategy = Literal["alone", "ddp", "fsdp"]
BYTES_PER_PARAMETER = 20  # weight, gradient, two moments and the running mean, in float32
SHARE_FOR_THEM = 0.8  # of a device's memory; the rest is for activations
FORCED = "LLAMA_BENCH_STRATEGY"  # environment: ddp or fsdp, whatever would fit


def strategy(parameters: int, processes: int, memory_bytes: int | None) -> Strategy:
    """How `processes` devices of `memory_bytes` share a model (None: as large as need be)."""
    if processes == 1:
        return "alone"
    forced = os.environ.get(FORCED)
    if forced:
        if forced not in ("ddp", "fsdp"):
            raise UserError(f"{FORCED}: is {forced!r}; set it to ddp or fsdp, or not at all")
        return forced
    room = None if memory_bytes is None else SHARE_FOR_THEM * memory_bytes
    return "fsdp" if room is not None and BYTES_PER_PARAMETER * parameters > room else "ddp"


@contextlib.contextmanager
def together(device: torch.device):
    """The process group of a training of several processes; nothing for one alone."""
    if world.processes() == 1:
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def placed(objective: Objective, chosen: Strategy, device: torch.device):
    """`objective` on the device(s): what to call for a loss whose gradients are shared."""
    if chosen == "fsdp":
        mesh = distributed.init_device_mesh(device.type, (world.processes(),))
        for block in objective.blocks:  # each moves to its device only as it is cut up
            fully_shard(block, mesh=mesh)
        return fully_shard(objective, mesh=mesh)
    objective.to(device)
    if chosen == "ddp":
        return DistributedDataParallel(objective, gradient_as_bucket_view=True)
    return objective


def gradients_shared(wrapped, shared: bool):
    """Within it a backward pass shares its gradients, or only adds them up for a later one."""
    if isinstance(wrapped, DistributedDataParallel) and not shared:
        return wrapped.no_sync()
    if hasattr(wrapped, "set_requires_gradient_sync"):
        wrapped.set_requires_gradient_sync(shared)
    return contextlib.nullcontext()


def forget_gathered(objective: Objective) -> None:
    """FSDP keeps the outermost weights whole until a backward pass; without one, a later change of
    the weights would not be seen."""
    if hasattr(objective, "reshard"):
        objective.reshard()


def own(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds; writing to it writes to the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of it, on the CPU; every process must ask."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


@torch.no_grad()
def fill(tensor: torch.Tensor, content: torch.Tensor) -> None:
    """Set a tensor, or this process's part of it, from the whole."""
    if isinstance(tensor, DTensor):
        content = content.to(tensor.device)
        content = distribute_tensor(
            content, tensor.device_mesh, tensor.placements, src_data_rank=None
        )
    own(tensor).copy_(own(content))


def total(values: torch.Tensor) -> torch.Tensor:
    """Sums over all processes."""
    if world.processes() > 1:
        distributed.all_reduce(values, distributed.ReduceOp.SUM)
    return values


def highest(numbers: list[float], device: torch.device) -> list[float]:
    """The largest of each over all processes: how they agree on what to do next."""
    if world.processes() == 1:
        return numbers
    values = torch.tensor(numbers, dtype=torch.float64, device=device)
    distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values.tolist()
