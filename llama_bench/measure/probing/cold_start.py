"""The phase `load`: from nothing to the first token, each time in a process of its own.

What a user waits for when a model is not yet running: the interpreter and its libraries, the
weights from the disk, the first prefill (and whatever is set up at first use). Files are read
through the system's page cache as it is: the first repeat may find it cold, the others find it
warm. Run as a module it is that process; times are of the monotonic clock, which all processes of
a system share.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from llama_bench.measure import memory, process
from llama_bench.measure import model as models
from llama_bench.measure.probing import devices, phases, probed_model, quantized, static_cache
from llama_bench.records import Refusal
from llama_bench.specs import ProbeSpec

PARTS = ("import_seconds", "load_seconds", "first_token_seconds")


class Load:
    """One cold start after the other; `parts` keeps what each was made of. `source` is the
    folder of the weights, or None where they are the Hub's."""

    kv_bytes = None

    def __init__(self, spec: ProbeSpec, source: Path | None, batch: int, context: int):
        self.tokens = batch * context
        self.parts: dict[str, list[float]] = {part: [] for part in PARTS}
        where = [] if source is None else [str(source)]
        self._words = [spec.canonical(), str(batch), str(context), *where]

    def prepare(self) -> None:
        pass

    def timed(self) -> float:
        command = [
            sys.executable,
            "-m",
            "llama_bench.measure.probing.cold_start",
            repr(time.monotonic()),
        ]
        done = subprocess.run([*command, *self._words], capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise RuntimeError(f"a cold start ended with {done.returncode}: {last}")
        said = json.loads(done.stdout.splitlines()[-1])
        if "status" in said:
            raise Refusal(said["status"], said["reason"])
        for part in PARTS:
            self.parts[part].append(said[part])
        return sum(said.values())


class Saved:
    """Weights on disk for as long as they are needed: a shape's are drawn and saved in `folder`,
    and deleted at the end; others are there already."""

    def __init__(
        self,
        spec: ProbeSpec,
        config: PreTrainedConfig,
        inputs: list[Path],
        folder: Path,
        device: torch.device,
    ):
        self._made = folder / "cold_start" if probed_model.is_drawn(spec) else None
        self.source = self._made or (inputs[0] if inputs else None)
        if self._made:
            dtype = probed_model.dtype_of(spec.precision)
            with memory.bounded(device):
                models.save(probed_model.drawn(config, dtype, device), self._made)
            memory.release()

    def __enter__(self) -> Path | None:
        return self.source

    def __exit__(self, *_) -> None:
        if self._made:
            shutil.rmtree(self._made)


def _first_token(
    began: float, spec: ProbeSpec, batch: int, context: int, folder: Path | None
) -> dict[str, float]:
    imported = time.monotonic()
    device = devices.find(spec.device, spec.device_name)
    with memory.bounded(device):
        model = probed_model.loaded(spec, folder, probed_model.dtype_of(spec.precision))
        if spec.precision in quantized.PRECISIONS:
            quantized.shrink(model, spec.precision, device)
        model = model.to(device)
        devices.synchronize(device)
        loaded = time.monotonic()
        kind = static_cache.Prefill if spec.engine == "static" else phases.Prefill
        prefill = kind(model, batch, context)
        prefill.prepare()
        phases.forward(model, prefill.ids, prefill.cache).argmax(-1).tolist()
        ended = time.monotonic()
    return dict(zip(PARTS, (imported - began, loaded - imported, ended - loaded), strict=True))


def _main(words: list[str]) -> dict[str, Any]:
    began, spec, batch, context, *folder = words
    where = Path(folder[0]) if folder else None
    try:
        return _first_token(float(began), ProbeSpec.parse(spec), int(batch), int(context), where)
    except Refusal as refusal:
        return {"status": refusal.status, "reason": refusal.reason}
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        return {"status": "out-of-memory", "reason": models.first_line(error)}


if __name__ == "__main__":
    process.die_with_parent()
    print(json.dumps(_main(sys.argv[1:])))
