"""One branch of one trunk, trained: warm-up, constant rate, decay (WSD).

The trunk of a size is trained once and every budget branches off it (Hu et al. 2024, MiniCPM,
arXiv 2404.06395; Haegele et al. 2024, arXiv 2405.18392). The trunk's state after s steps depends
on s alone, so a run that goes on from another's trunk, or from its own interrupted self, ends with
the very bytes of one that began at zero.

The loop is a plain one: AdamW (Loshchilov and Hutter 2019) with decay on matrices only, gradients
clipped by norm, cross-entropy in nats per token.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from llama_bench import records
from llama_bench.measure import memory
from llama_bench.measure import model as models
from llama_bench.measure import state as states
from llama_bench.measure.state import State
from llama_bench.measure.tokens import Order, Tokens
from llama_bench.records import Refusal
from llama_bench.specs import TrainSpec

VALIDATION_TOKENS = 40_960  # evenly spread over the held-out text; the same for every run
CURVE_POINTS = 200
SAVE_EVERY_SECONDS = 60.0


def run(spec: TrainSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Train to `folder`/checkpoint. `inputs`: the prepare record, then, where there is one, the
    record of the branch before on the same trunk.

    Raises Refusal: diverged (a loss that is not finite, or three times that of a uniform guess),
    out-of-memory.
    """
    data = records.read(inputs[0])
    corpus = inputs[0].parent
    width = data.result["token_width"]
    train = Tokens(corpus / "train.bin", width, spec.context)
    held_out = Tokens(corpus / "validation.bin", width, spec.context)
    vocab_size = data.result["vocab_size"]
    device = models.device()
    meter = memory.meter(device)
    try:
        with memory.bounded(device):
            model = models.build(spec.model, vocab_size, spec.context, spec.seed).to(device)
            optimizer = _optimizer(model, spec)
            state = _start(spec, folder, inputs[1:], model, optimizer)
            pace = _train(spec, folder, model, optimizer, state, train, progress)
            losses = _held_out_losses(model, held_out, spec, device)
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise Refusal("out-of-memory", str(error).splitlines()[0]) from None
        raise
    checkpoint = folder / "checkpoint"
    model.save_pretrained(checkpoint)
    for part in (corpus / "tokenizer").iterdir():
        shutil.copyfile(part, checkpoint / part.name)
    _write_curve(spec, state, folder / "curve.csv", float(losses[0].mean()))
    states.forget(folder)
    return {
        **_accounting(spec, vocab_size, train.windows * spec.context),
        **_quality(losses, np.load(corpus / "token_bytes.npy")),
        "train_loss": float(np.mean(state.losses[-max(1, spec.steps // 10) :])),
        "tokens_per_second": pace,
        "trained_tokens": (spec.steps - state.began) * spec.batch_tokens,
        "continued_from": state.continued_from,
        **meter.peaks(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }


def rate(spec: TrainSpec, step: int) -> float:
    """Learning rate of a step: linear warm-up, constant, then 1 - x or 1 - sqrt(x) to zero.

    The square root is Haegele et al.'s (2024, section 3): better than the straight line.
    """
    warm = round(spec.warmup_tokens / spec.batch_tokens)
    scale = min(1.0, (step + 1) / warm) if warm else 1.0
    if step >= spec.trunk_steps:
        x = (step - spec.trunk_steps + 1) / (spec.steps - spec.trunk_steps + 1)
        scale *= 1 - (x if spec.decay == "linear" else math.sqrt(x))
    return spec.learning_rate * scale


def _optimizer(model, spec: TrainSpec) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": spec.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=spec.betas, eps=1e-8, fused=True)


def _start(spec: TrainSpec, folder: Path, before: list[Path], model, optimizer) -> State:
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
    model.load_state_dict(state.model)
    optimizer.load_state_dict(state.optimizer)
    state.model, state.optimizer = {}, {}
    return state


def _train(spec, folder, model, optimizer, state: State, tokens: Tokens, progress) -> float | None:
    """All steps from where the state stands to the end; tokens per second of this process."""
    order = Order(tokens.windows, spec.batch, spec.seed)
    explodes = 3 * math.log(model.config.vocab_size)
    first, began, saved = state.step, time.monotonic(), time.monotonic()
    if first > state.began:
        progress.say(f"goes on from step {first} of {spec.steps}, where it was stopped")
    with states.stop_requests() as stop:
        while state.step < spec.steps:
            if state.step == spec.trunk_steps:
                states.save(_filled(state, model, optimizer), folder / "trunk.pt")
            loss = _step(spec, model, optimizer, state.step, tokens.take(order.step(state.step)))
            if not loss < explodes:
                raise Refusal(
                    "diverged",
                    f"the loss is {loss:.3g} at step {state.step} of {spec.steps}",
                    {"step": state.step, "loss": loss},
                )
            state.losses.append(loss)
            state.step += 1
            recent = float(np.mean(state.losses[-20:]))
            progress(state.step - first, spec.steps - first, f"of its steps, loss {recent:.3f}")
            asked = stop()
            if asked or time.monotonic() - saved > SAVE_EVERY_SECONDS:
                states.save_newest(_filled(state, model, optimizer), folder)
                saved = time.monotonic()
            if asked and state.step < spec.steps:
                progress.say(
                    f"stopped by signal {asked} after step {state.step}; resumes from there"
                )
                sys.exit(128 + asked)
    if spec.trunk_steps == spec.steps:
        states.save(_filled(state, model, optimizer), folder / "trunk.pt")
    tokens_done = (state.step - first) * spec.batch_tokens
    return tokens_done / (time.monotonic() - began) if tokens_done else None


def _step(spec: TrainSpec, model, optimizer, step: int, batch) -> float:
    device = model.device
    inputs, targets = (part.to(device, non_blocking=True) for part in batch)
    for group in optimizer.param_groups:
        group["lr"] = rate(spec, step)
    with _precision(spec, device):
        logits = model(input_ids=inputs, use_cache=False).logits
    loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _precision(spec: TrainSpec, device: torch.device):
    """bfloat16 multiplies in 16 bits; weights, gradients and moments stay in 32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16")


def _filled(state: State, model, optimizer) -> State:
    return State(
        **{**vars(state), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    )


@torch.no_grad()
def _held_out_losses(model, tokens: Tokens, spec, device) -> tuple[np.ndarray, np.ndarray]:
    """Loss of every held-out token, nats, and the tokens: each (windows, context)."""
    wanted = max(1, min(tokens.windows, VALIDATION_TOKENS // spec.context))
    windows = np.linspace(0, tokens.windows - 1, wanted).astype(np.int64)
    model.eval()
    losses, targets = [], []
    for start in range(0, wanted, 8):
        inputs, target = tokens.take(windows[start : start + 8])
        with _precision(spec, device):
            logits = model(input_ids=inputs.to(device), use_cache=False).logits.float()
        loss = functional.cross_entropy(
            logits.flatten(0, 1), target.to(device).flatten(), reduction="none"
        )
        losses.append(loss.view(target.shape).double().cpu().numpy())
        targets.append(target.numpy())
    return np.concatenate(losses), np.concatenate(targets)


def _quality(losses: tuple[np.ndarray, np.ndarray], token_bytes: np.ndarray) -> dict:
    """Nats per token over all, and bits per byte of text: tokens that are no text left out."""
    nats, targets = losses
    lengths = token_bytes[targets]
    text = lengths > 0
    bits = float(nats[text].sum() / math.log(2) / lengths.sum())
    return {
        "loss": float(nats.mean()),
        "loss_standard_error": float(nats.mean(axis=1).std(ddof=1) / math.sqrt(len(nats)))
        if len(nats) > 1
        else None,
        "bits_per_byte": bits,
        "validation_tokens": int(nats.size),
    }


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


def _write_curve(spec: TrainSpec, state: State, path: Path, final: float) -> None:
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
            table.writerow([end * spec.batch_tokens, f"{mean:.6f}", last, rate(spec, end - 1)])
    os.replace(aside, path)
