"""Speed and memory of one model over phase x batch x context (docs/protocol.md says how).

Numbers of this kind are wrong more often than right for want of a warm-up, of repeats, of exact
token counts, or of a quiet machine; so each cell of the grid keeps every repeat, how it was warmed
up, and what else the machine was doing. One import and one model serve the whole grid. A cell that
cannot be measured (out of memory, too long a context) is a row that says so; the others go on.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure import memory, model, timing
from llama_bench.measure.phases import PHASES, PRECISIONS
from llama_bench.records import Refusal
from llama_bench.shape import Shape
from llama_bench.specs import ProbeSpec

_MEASURED = (
    *("tokens", "kv_bytes", "peak_bytes", "reserved_bytes"),
    *("warmup_repeats", "warmup_variation", "load"),
)
_TINY = Shape(layers=1, width=16, heads=1, ffn_width=16)


def run(spec: ProbeSpec, folder: Path, inputs: list[Path], progress) -> dict[str, Any]:
    """`inputs` holds the model's folder where the spec is about a local pretrained one.

    Raises UserError where the device asked for is not there, Refusal where the model cannot be
    had or does not fit into memory.
    """
    device = _device(spec.device)
    _wake_libraries(device)
    meter = memory.meter(device)
    with memory.bounded(device):
        probed = _obtain(spec, inputs, device)
        weight_bytes = sum(weight.nbytes for weight in probed.parameters())
        grid = list(product(spec.phases, sorted(spec.batches), sorted(spec.contexts)))
        cells = []
        for done, (phase, batch, context) in enumerate(grid):
            progress(done, len(grid), f"{phase}, batch {batch}, context {context}")
            cells.append(_cell(spec, probed, meter, phase, batch, context))
        progress(len(grid), len(grid), "probed")
    return {
        "parameters": model.count(probed),
        "device": _facts(device),
        "baseline_bytes": meter.baseline_bytes,
        "peak_source": meter.source,
        "weight_bytes": weight_bytes,
        "warmup": {
            "window": timing.WINDOW,
            "steady": timing.STEADY,
            "cap_seconds": timing.warmup_cap(spec.seconds),
        },
        "cells": cells,
    }


def _cell(
    spec: ProbeSpec, probed: PreTrainedModel, meter, phase: str, batch: int, context: int
) -> dict[str, Any]:
    """One row: what was measured, or the status and reason of what could not be."""
    row: dict[str, Any] = {"phase": phase, "batch": batch, "context": context}
    row |= dict.fromkeys(_MEASURED)
    row |= {"status": "ok", "reason": None, "seconds": []}
    try:
        _refuse_beyond(probed, context)
        row |= _measured(spec, probed, meter, phase, batch, context)
    except Refusal as refusal:
        row |= {"status": refusal.status, "reason": refusal.reason}
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        row |= {"status": "out-of-memory", "reason": str(error).strip().splitlines()[0]}
    probed.zero_grad(set_to_none=True)
    memory.release()
    return row


def _measured(
    spec: ProbeSpec, probed: PreTrainedModel, meter, phase: str, batch: int, context: int
) -> dict[str, Any]:
    work = PHASES[phase](probed, batch, context, PRECISIONS[spec.precision])
    meter.restart()
    timed = timing.measure(work, probed.device, spec.repeats, spec.seconds)
    return {"tokens": work.tokens, "kv_bytes": work.kv_bytes, **timed, **meter.peaks()}


def _refuse_beyond(probed: PreTrainedModel, context: int) -> None:
    longest = getattr(probed.config, "max_position_embeddings", None)
    if longest is not None and context > longest:
        raise Refusal("refused", f"a context of {context} is beyond the model's maximum, {longest}")


def _obtain(spec: ProbeSpec, inputs: list[Path], device: torch.device) -> PreTrainedModel:
    """The model that the spec is about, on the device and in the asked precision."""
    dtype = PRECISIONS[spec.precision]
    try:
        if spec.model is not None:
            built = model.build(spec.model, spec.vocab_size, max(spec.contexts), seed=0)
        elif spec.pretrained.repo:
            built = model.load(spec.pretrained.repo, spec.pretrained.revision, dtype)
        else:
            built = model.load(inputs[0], dtype=dtype)
        return built.to(device, dtype)
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        first = str(error).strip().splitlines()[0]
        raise Refusal("out-of-memory", f"the weights alone do not fit: {first}") from error


def _wake_libraries(device: torch.device) -> None:
    """Run each phase of a tiny Llama: what libraries load at first use is none of the model's."""
    tiny = model.build(_TINY, vocab_size=16, context=16, seed=0).to(device)
    for phase in PHASES.values():
        work = phase(tiny, 1, 16, torch.float32)
        work.prepare()
        work.work()


def _device(kind: str) -> torch.device:
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "probe.device: cuda is asked for, but torch sees no CUDA device here; "
            "set device: cpu, or install a torch with CUDA on a machine with a GPU"
        )
    return torch.device(kind)


def _facts(device: torch.device) -> dict[str, Any]:
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
    }
