"""One cell of a probe's grid: a row with what was measured, or with why it could not be.

All rows have the same keys, null where there is nothing to say; docs/protocol.md explains them.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedConfig

from llama_bench.measure import memory
from llama_bench.measure import model as models
from llama_bench.measure.probing import instruments, probed_model, timing
from llama_bench.measure.probing.cold_start import PARTS
from llama_bench.measure.probing.engines import Engine
from llama_bench.measure.probing.largest_batch import largest
from llama_bench.measure.probing.timing import Work
from llama_bench.records import Refusal
from llama_bench.specs import ProbeSpec

Place = tuple[str, int, int]  # phase, batch, context
GENERATION = ("prefill", "decode")
OK, BUSY = "ok", "ok, busy"  # measured; and measured while others took of the device
FAILED = "failed"  # by an error that nobody foresaw
_CACHES_AGREE = 0.02  # measured and by formula

_MEASURED = (
    *("tokens", "round_repeats", "warmup_repeats", "warmup_variation"),
    *("load", "other_processes", "busy"),
    *(*timing.PER_REPEAT, "sampling_seconds", "compile_seconds", "cudagraph_skips"),
    *PARTS,
    *("peak_bytes", "reserved_bytes", "kv_bytes", "kv_formula_bytes", "training_bytes"),
    "activation_bytes",
)


class Cells:
    """Measures cells of one grid, on one device, by one set of rules. `lost` says why the device
    answers no more, and with that why nothing further is measured."""

    def __init__(
        self,
        spec: ProbeSpec,
        config: PreTrainedConfig,
        device: torch.device,
        neighbours: instruments.Neighbours,
    ):
        self.spec, self.config, self.device = spec, config, device
        self.meter = memory.meter(device)
        self.instruments = instruments.of(device)
        self.neighbours = neighbours
        self._dtype = probed_model.dtype_of(spec.precision)
        self.rounds = timing.rounds(spec.repeats, spec.seconds)
        self._timed: dict[Place, timing.Kept] = {}
        self._sampling: dict[int, list[float] | None] = {}
        self.lost: str | None = None

    def first(self, engine: Engine, place: Place) -> dict[str, Any]:
        """The row of a cell that `engine` computes: warmed up, its memory, and its first round;
        all rounds where the engine had to build the cell anew for each."""
        phase, batch, context = place

        def measure() -> dict[str, Any]:
            _refuse_beyond(self.config, context)
            work = engine.work(*place)
            self.meter.restart()
            found = self._kept(place, work, self.rounds[: None if engine.builds_dearly else 1])
            found |= self._memory(work, engine, batch * context)
            samples = phase in GENERATION
            return found | {"sampling_seconds": self._sampled(engine, batch) if samples else None}

        return self._cleaned(engine, place, measure)

    def again(self, engine: Engine, row: dict[str, Any], number: int) -> dict[str, Any]:
        """`row` with one round more: its inputs made anew, and one repeat thrown away."""
        if self.lost:
            return row | {"reason": f"only {len(row['round_repeats'])} rounds: {self.lost}"}
        place = row["phase"], row["batch"], row["context"]

        def measure() -> dict[str, Any]:
            work = engine.work(*place)
            if not timing.is_elsewhere(work):
                timing.once(work, self.device)
            return row | self._kept(place, work, [self.rounds[number]])

        return self._cleaned(engine, place, measure)

    def _cleaned(self, engine: Engine, place: Place, measure) -> dict[str, Any]:
        if self.lost:
            return unmeasured(place, FAILED, self.lost)
        row = row_of(place, measure)
        self._clean(engine, "{}, batch {}, context {}".format(*place))
        return row

    def _clean(self, engine: Engine, after: str) -> None:
        """An error of a kernel may take the GPU's whole context with it, which then says so in
        every call."""
        try:
            engine.clean()
            memory.release()
        except RuntimeError as error:
            self.lost = f"the device was lost after {after}: {models.first_line(error)}"

    def _kept(self, place: Place, work: Work, rounds: list[tuple[int, float]]) -> dict[str, Any]:
        """What the clock and the instruments say of `work` in all its rounds so far, and who else
        was there."""
        if place not in self._timed:
            self._timed[place] = self._keeper()
            self._timed[place].warm_up(work, self.spec.seconds)
        for repeats, seconds in rounds:
            self._timed[place].keep(work, repeats, seconds)
        return self._about(work, self._timed[place])

    def _keeper(self) -> timing.Kept:
        neighbours = partial(self.neighbours.count, self.instruments)
        return timing.Kept(self.device, self.instruments, neighbours)

    def started(self, work: Work) -> dict[str, Any]:
        """The same of cold starts, none of which is thrown away."""
        kept = self._keeper()
        for repeats, seconds in self.rounds:
            kept.keep(work, repeats, seconds)
        return self._about(work, kept)

    def _about(self, work: Work, kept: timing.Kept) -> dict[str, Any]:
        found, others = kept.found(), kept.other_processes
        threads = torch.get_num_threads()
        busy = timing.busy(found["load"], others, os.cpu_count() or 1, threads)
        return found | {
            "status": BUSY if busy else OK,
            "tokens": work.tokens,
            "other_processes": others,
            "busy": busy,
            "compile_seconds": getattr(work, "compile_seconds", None),
            "cudagraph_skips": getattr(work, "cudagraph_skips", None),
        }

    def _memory(self, work: Work, engine: Engine, tokens: int) -> dict[str, Any]:
        """What the peak is made of; of work in another process nothing is known."""
        formula = probed_model.cache_bytes(self.config, tokens, self._dtype)
        if timing.is_elsewhere(work):
            return {"kv_formula_bytes": formula}
        peaks, training = self.meter.peaks(), getattr(work, "bytes_held", None)
        held = training if training is not None else engine.weight_bytes + work.kv_bytes
        rest = None if peaks["peak_bytes"] is None else peaks["peak_bytes"] - held
        return peaks | {
            "kv_bytes": work.kv_bytes,
            "kv_formula_bytes": None if work.kv_bytes is None else formula,
            "reason": _disagreement(work.kv_bytes, formula),
            "training_bytes": training,
            # less than nothing: part of the weights was not resident, so nothing can be said
            "activation_bytes": None if rest is None or rest < 0 else rest,
        }

    def _sampled(self, engine: Engine, batch: int) -> list[float] | None:
        """Seconds of drawing one token for each sequence, measured once for each batch."""
        if batch not in self._sampling:
            work, timed = engine.sampling(batch), None
            if work is not None:
                repeats = self.spec.repeats
                timed = timing.measure(work, self.device, self.instruments, repeats, 0.0)["seconds"]
            self._sampling[batch] = timed
        return self._sampling[batch]

    def largest_batch(self, engine: Engine, phase: str, context: int) -> dict[str, Any]:
        """The row of the largest batch that fits a context."""
        tried: list[int] = []

        def reason_against(batch: int) -> str | None:
            tried.append(batch)
            try:
                engine.try_out(phase, batch, context)
            except Exception as error:
                if not memory.is_out_of_memory(error):
                    raise
                return models.first_line(error)
            finally:
                self._clean(engine, f"{phase}, batch {batch}, context {context}")

        row: dict[str, Any] = {"phase": phase, "context": context}
        row |= {"batch": None, "limited_by": None, "tries": 0}
        if self.lost:
            return row | {"status": FAILED, "reason": self.lost}
        try:
            _refuse_beyond(self.config, context)
            return row | largest(reason_against)
        except Exception as error:
            return row | {"tries": len(tried)} | _said(error)


def row_of(place: Place, measure) -> dict[str, Any]:
    """What `measure()` found, or the status and reason of why it found nothing."""
    row: dict[str, Any] = dict(zip(("phase", "batch", "context"), place, strict=True))
    row |= {"status": OK, "reason": None, "seconds": []} | dict.fromkeys(_MEASURED)
    try:
        return row | measure()
    except Exception as error:
        return row | _said(error)


def _said(error: Exception) -> dict[str, str]:
    """Status and reason of what an error kept from being measured."""
    if isinstance(error, Refusal):
        return {"status": error.status, "reason": error.reason}
    if memory.is_out_of_memory(error):
        return {"status": "out-of-memory", "reason": models.first_line(error)}
    logging.getLogger(__name__).error("a cell failed", exc_info=error)  # log.txt has the rest
    return {"status": FAILED, "reason": models.first_line(error)}


def unmeasured(place: Place, status: str, reason: str) -> dict[str, Any]:
    return row_of(place, lambda: {"status": status, "reason": reason})


def _disagreement(measured: int | None, formula: int) -> str | None:
    """What to say of a cache that is not as large as the formula has it."""
    if measured is None or abs(measured - formula) <= _CACHES_AGREE * formula:
        return None
    return f"keys and values take {measured:,} bytes, by formula {formula:,}"


def _refuse_beyond(config: PreTrainedConfig, context: int) -> None:
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and context > longest:
        raise Refusal("refused", f"a context of {context} is beyond the model's maximum, {longest}")
