"""One branch of one trunk, trained; or, on a cosine schedule, one run of its own.

The trunk of a size is trained once and every budget branches off it (schedule.py). The trunk's
state after s steps depends on s alone, so a run that goes on from another's trunk, or from its own
interrupted self, ends with the very bytes of one that began at zero. The loss is cross-entropy in
nats per token. The same code runs in one process or in several (parallel.py); the one of rank 0
writes.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
from pathlib import Path

import numpy as np
import torch

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure import memory
from llama_bench.measure import model as models
from llama_bench.measure.training import ceiling, compiling, parallel, world
from llama_bench.measure.training import state as states
from llama_bench.measure.training.branch import Branch
from llama_bench.measure.training.engine import Engine
from llama_bench.measure.training.loop import Loop, refuse_nan
from llama_bench.measure.training.schedule import peak_rate, rate
from llama_bench.measure.training.state import State
from llama_bench.measure.training.tokens import Order, Tokens, batches
from llama_bench.measure.training.validation import Validation, of_all, quality
from llama_bench.records import Refusal
from llama_bench.specs import TrainSpec

CURVE_POINTS = 200
BATCHES_AHEAD = 4  # read by a thread, for a GPU


def run(spec: TrainSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Train to `folder`/checkpoint. `inputs`: the prepare record, then, where there are such, the
    record of the branch before on the same trunk, and those of the spec's sweep.

    Raises Refusal: diverged (a loss that is not finite, or three times that of a uniform guess),
    out-of-memory, skipped (a sweep without a loss).
    """
    swept = [path for path in inputs[1:] if path.parent.name in (spec.sweep or ())]
    before = [path for path in inputs[1:] if path not in swept]
    peak, sweep = peak_rate(spec, swept)
    data = records.read(inputs[0])
    tokens, held_out = _texts(spec, inputs[0].parent, data.result["token_width"])
    device = models.device()
    meter = memory.meter(device)
    try:
        with memory.bounded(device), parallel.together(device):
            engine = _engine(spec, data.result["vocab_size"], device)
            state = _start(spec, folder, before, engine)
            pace, losses = _trained(spec, peak, folder, engine, state, tokens, held_out, progress)
            _write(spec, peak, folder, engine, state, losses, inputs[0].parent / "tokenizer")
    except Exception as error:
        if memory.is_out_of_memory(error) and world.processes() == 1:
            raise Refusal("out-of-memory", str(error).strip().splitlines()[0]) from None
        raise
    return {
        **_accounting(spec, data.result["vocab_size"], tokens.windows * spec.context),
        **quality(losses, np.load(inputs[0].parent / "token_bytes.npy")),
        "train_loss": float(np.mean(state.losses[-max(1, spec.steps // 10) :])),
        "trunk_loss": of_all(state.trunk_loss, losses[0]),
        "averaged_loss": of_all(state.averaged_loss, losses[0]),
        "learning_rate": peak,
        "sweep": sweep,
        "trained_tokens": (spec.steps - state.began) * spec.batch_tokens,
        "continued_from": state.continued_from,
        **_speed(spec, engine, pace),
        **meter.peaks(),
        **_manner(engine),
    }


def _texts(spec: TrainSpec, corpus: Path, width: int) -> tuple[Tokens, Validation]:
    if spec.batch % world.processes():
        raise UserError(
            f"train.batch: {spec.batch} sequences cannot be shared by {world.processes()} "
            "processes; make it a multiple of train.gpus"
        )
    tokens = Tokens(corpus / "train.bin", width, spec.context, spec.unique_tokens)
    return tokens, Validation(Tokens(corpus / "validation.bin", width, spec.context))


def _engine(spec: TrainSpec, vocab_size: int, device: torch.device) -> Engine:
    parameters = spec.model.parameters(vocab_size)["all"]
    room = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    strategy = parallel.strategy(parameters, world.processes(), room)
    if device.type == "cuda" and spec.precision == "float32":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = models.build(spec.model, vocab_size, spec.context, spec.seed)
    return Engine(model, spec, strategy, device)


def _start(spec: TrainSpec, folder: Path, before: list[Path], engine: Engine) -> State:
    """This run's own state if it was interrupted, else the trunk before it, else zero."""
    state = states.load_newest(folder, spec.trunk)
    if state is None and before:
        state = states.load(before[0].parent / "trunk.pt", spec.trunk)
        if state is not None and state.step <= spec.trunk_steps:
            state.began, state.continued_from = state.step, before[0].parent.name
        else:
            state = None
    if state is None:
        return State(trunk=spec.trunk)
    engine.take(state)
    state.model, state.optimizer, state.average = {}, {}, {}
    return state


def _trained(spec, peak, folder, engine, state: State, tokens, held_out, progress):
    """Tokens per second and, in the end, the losses on held-out text."""
    each = spec.batch // world.processes()
    share = slice(world.rank() * each, (world.rank() + 1) * each)
    own = None if spec.cooldown_seed is None else (spec.trunk_steps, spec.cooldown_seed)
    order = Order(tokens.windows, spec.batch, spec.seed, own)
    if state.step < spec.steps:
        trial = tokens.take(order.step(state.step)[share])
        engine.find_room(trial)
        left = spec.steps - state.step
        compiling.choose(engine, spec, state.compiled, left, trial, progress.say)
    course = Branch(spec, peak, folder, engine, state, held_out)
    loop = Loop(course, folder, engine, state, progress)
    ahead = BATCHES_AHEAD if engine.device.type == "cuda" else 0
    pace = loop.run(batches(tokens, order, range(state.step, spec.steps), share, ahead))
    losses = held_out.losses(engine)
    refuse_nan(float(losses[0].mean()), state.step, spec.steps)
    return pace, losses


def _write(spec, peak, folder: Path, engine: Engine, state: State, losses, tokenizer: Path) -> None:
    """The checkpoint, a Hugging Face folder however it was trained, and the curve."""
    weights = engine.whole_weights()
    if world.rank() > 0:
        return
    checkpoint = folder / "checkpoint"
    with states.full_disk_told(folder):
        models.save(engine.model, checkpoint, weights)
        for part in tokenizer.iterdir():
            shutil.copyfile(part, checkpoint / part.name)
        _write_curve(spec, peak, state, folder / "curve.csv", float(losses[0].mean()))
    states.forget(folder)


def _accounting(spec: TrainSpec, vocab_size: int, available: int) -> dict:
    tokens = spec.steps * spec.batch_tokens
    counts = spec.model.parameters(vocab_size)
    return {
        "parameters": counts,
        "tokens": tokens,
        "unique_tokens": min(tokens, available),
        "steps": spec.steps,
        "flops": {
            "exact": float(spec.model.flops_per_token(vocab_size, spec.context)) * tokens,
            "six_n_d": 6.0 * counts["without_embeddings"] * tokens,
        },
    }


def _speed(spec: TrainSpec, engine: Engine, pace: float | None) -> dict:
    """Operations are those of the exact count; the ceiling is that of all devices together."""
    per_token = spec.model.flops_per_token(engine.objective.vocab_size, spec.context)
    one = ceiling.matrix_flops_per_second(engine.device, engine.objective.dtype)
    reached = None if pace is None else per_token * pace
    return {
        "tokens_per_second": pace,
        "model_flops_per_second": reached,
        "matrix_flops_per_second": one * world.processes(),
        "mfu": None if reached is None else reached / (one * world.processes()),
    }


def _manner(engine: Engine) -> dict:
    """How the run was carried out: none of it is asked for, all of it is kept."""
    device = engine.device
    return {
        "compiled": engine.compiled,
        "micro_batch": engine.micro_batch,
        "activation_checkpointing": engine.objective.checkpointed,
        "processes": world.processes(),
        "strategy": engine.strategy,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }


def _write_curve(spec: TrainSpec, peak: float, state: State, path: Path, final: float) -> None:
    """About 200 rows: the mean loss since the row before; the last one has the held-out loss."""
    every = max(1, math.ceil(spec.steps / CURVE_POINTS))
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["tokens", "train_loss", "validation_loss", "learning_rate"])
        for start in range(0, spec.steps, every):
            end = min(start + every, spec.steps)
            mean = float(np.mean(state.losses[start:end]))
            last = f"{final:.6f}" if end == spec.steps else ""
            applied = rate(spec, end - 1, peak)
            table.writerow([end * spec.batch_tokens, f"{mean:.6f}", last, applied])
    os.replace(aside, path)
