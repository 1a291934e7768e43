"""Speed, memory and energy of one model over phase x batch x context (docs/protocol.md says how).

Numbers of this kind are wrong more often than right for want of a warm-up, of repeats, of exact
token counts, or of a quiet machine; so each cell of the grid keeps every repeat, how it was warmed
up, and what else the machine was doing, and is timed in rounds over the whole grid, so that what
disturbs the machine for a while meets every cell a little. One import and one model serve them all.
A cell that cannot be measured (out of memory, too long a context, an engine that is not installed,
a kernel that fails) is a row that says so; the others go on.
"""

from __future__ import annotations

import contextlib
from itertools import product
from pathlib import Path
from typing import Any

import torch

from llama_bench.measure import memory
from llama_bench.measure import model as models
from llama_bench.measure.probing import (
    cold_start,
    devices,
    engines,
    instruments,
    phases,
    probed_model,
    static_cache,
    timing,
    vllm_engine,
)
from llama_bench.measure.probing.cells import (
    FAILED,
    GENERATION,
    Cells,
    Place,
    row_of,
    unmeasured,
)
from llama_bench.shape import Shape
from llama_bench.specs import ProbeSpec

_TINY = Shape(layers=1, width=32, heads=1, ffn_width=32)


def run(spec: ProbeSpec, folder: Path, inputs: list[Path], progress) -> dict[str, Any]:
    """`inputs` holds the model's folder where the spec is about a local pretrained one.

    Raises UserError where the device asked for is not there, Refusal where the model cannot be
    had or does not fit into memory.
    """
    neighbours = instruments.Neighbours()
    device = devices.find(spec.device, spec.device_name)
    config = probed_model.configuration(spec, inputs)
    reason = engines.refuses(spec, device)
    if reason is None and spec.engine != "vllm":
        _wake_libraries(spec, device)
    cells = Cells(spec, config, device, neighbours)
    if reason is None:
        measured = _measure(cells, inputs, folder, progress)
    else:
        refusals = [unmeasured(place, "refused", reason) for place in _grid(spec)]
        measured = {"weight_bytes": None, "cells": refusals, "largest_batches": []}
    energy = cells.instruments.energy
    return {
        "parameters": probed_model.counted(config),
        "shape": probed_model.shape(config),
        "members": probed_model.members(config),
        "device": devices.facts(device),
        "engine": engines.facts(spec) if reason is None else None,
        "weights": "random" if probed_model.is_drawn(spec) else "real",
        "baseline_bytes": cells.meter.baseline_bytes,
        "peak_source": cells.meter.source,
        "energy_source": energy.source,
        "energy_missing": energy.missing,
        "warmup": {
            "window": timing.WINDOW,
            "steady": timing.STEADY,
            "cap_seconds": timing.warmup_cap(spec.seconds),
        },
        **measured,
    }


def _grid(spec: ProbeSpec) -> list[Place]:
    """Of `load` the smallest cell alone: a start takes seconds whatever comes first."""
    batches, contexts = sorted(spec.batches), sorted(spec.contexts)
    return [
        place
        for place in product(dict.fromkeys(spec.phases), batches, contexts)
        if place[0] != "load" or place == ("load", batches[0], contexts[0])
    ]


def _searches(spec: ProbeSpec) -> list[tuple[str, int]]:
    """Phases and contexts whose largest batch is asked for."""
    phases_asked = [phase for phase in dict.fromkeys(spec.phases) if phase in GENERATION]
    return list(product(phases_asked, sorted(spec.contexts))) if spec.max_batch else []


def _measure(cells: Cells, inputs: list[Path], folder: Path, progress) -> dict[str, Any]:
    """All rows. Cold starts come first, while this process holds no model."""
    spec, grid, searches = cells.spec, _grid(cells.spec), _searches(cells.spec)
    starts = [place for place in grid if place[0] == "load"]
    held = [place for place in grid if place not in starts]
    rows: dict[Place, dict[str, Any]] = {}
    largest_batches: list[dict[str, Any]] = []
    note = _Noting(progress, len(starts), len(held), len(searches))
    cells.neighbours.ready(cells.instruments)
    for place in starts:
        note(_named(place))
        rows[place] = row_of(place, lambda at=place: _cold_start(cells, inputs, folder, at))
    if starts:  # what they left behind is none of the model's
        memory.release()
        cells.meter = memory.meter(cells.device)
    bound = contextlib.nullcontext() if spec.engine == "vllm" else memory.bounded(cells.device)
    with bound, contextlib.ExitStack() as at_end:
        engine = engines.start(spec, cells.config, inputs, cells.device, folder)
        at_end.callback(engine.close)
        if engine.weight_bytes and not probed_model.is_drawn(spec):
            cells.meter.leave_out_all_but(engine.weight_bytes)
        cells.neighbours.ready(cells.instruments)
        note.rounds = 1 if engine.builds_dearly else len(cells.rounds)
        for number in range(note.rounds):
            for place in held:
                note(f"{_named(place)}, round {number + 1}")
                if not number:
                    rows[place] = cells.first(engine, place)
                elif rows[place]["seconds"]:
                    rows[place] = cells.again(engine, rows[place], number)
        for phase, context in searches:
            note(f"{phase}, the largest batch of context {context}")
            largest_batches.append(cells.largest_batch(engine, phase, context))
        weight_bytes = engine.weight_bytes
    note("probed")
    ordered = [rows[place] for place in grid]
    _raise_if_nothing(ordered)
    return {"weight_bytes": weight_bytes, "cells": ordered, "largest_batches": largest_batches}


def _raise_if_nothing(rows: list[dict[str, Any]]) -> None:
    """Errors of some cells are results; where they leave nothing they are an accident, to be tried
    again."""
    failures = [row["reason"] for row in rows if row["status"] == FAILED]
    if failures and not any(row["seconds"] for row in rows):
        raise RuntimeError(f"no cell could be measured: {failures[0]}")


class _Noting:
    """Progress, in visits of cells; `rounds` is how often each is visited."""

    def __init__(self, progress, starts: int, held: int, searches: int):
        self._progress, self._once, self._held = progress, starts + searches, held
        self._done, self.rounds = 0, 1

    def __call__(self, what: str) -> None:
        self._progress(self._done, self._once + self.rounds * self._held, what)
        self._done += 1


def _named(place: Place) -> str:
    return "{}, batch {}, context {}".format(*place)


def _cold_start(cells: Cells, inputs: list[Path], folder: Path, place: Place) -> dict[str, Any]:
    """Repeats of a start each in a process of its own; nothing is warmed up."""
    spec, config = cells.spec, cells.config
    _, batch, context = place
    with cold_start.Saved(spec, config, inputs, folder, cells.device) as source:
        if spec.engine == "vllm":
            where = vllm_engine.described(config, source) if probed_model.is_drawn(spec) else source
            named = str(where or spec.pretrained.repo)
            work = vllm_engine.Load(spec, config, named, folder / "vllm.log", (batch, context))
        else:
            work = cold_start.Load(spec, source, batch, context)
        found = cells.started(work)
    return found | work.parts


def _wake_libraries(spec: ProbeSpec, device: torch.device) -> None:
    """Run the phases on a tiny Llama: what libraries load at first use is none of the model's.
    Training always, so that a cell's memory is the same whatever other phases are asked."""
    config = models.config_of(_TINY, vocab_size=16, context=16)
    tiny = probed_model.drawn(config, torch.float32, device)
    works = {"prefill": phases.Prefill, "decode": phases.Decode}
    if spec.engine == "static":
        works = {"prefill": static_cache.Prefill, "decode": static_cache.Decode}
    woken = [works[phase](tiny, 1, 16) for phase in spec.phases if phase in works]
    woken.append(phases.Train(tiny, 1, 16, torch.float32))
    for work in (*woken, phases.Sampling(tiny, 1)):
        work.prepare()
        work.work()
