"""How fast a training is: ours, transformers' Trainer, and a plain loop over the same model.

    python benchmarks/train.py [SECONDS] [ROUNDS] [PRECISION] [SIZE ...]

One after the other, round by round, each in a process of its own, on the same shapes, tokens and
precision (defaults: 30 seconds of the plain loop, 3 rounds, float32, the default study's sizes).
Ours is the whole command: log, held-out losses, states, checkpoint and record. The plain loop and
the Trainer (its defaults, float32 among them, with the recipe's rate, decay and clipping) build the
model, take the steps and write a checkpoint. `validated` is the plain loop with one held-out loss
at its end, on our windows. OMP_NUM_THREADS says how many threads each may use. Prints one JSON
object; `ratio_*` is their seconds over ours, imports left out, and `ratio_*_total` with them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llama_bench import records
from llama_bench.recipe import peak_rate, warmup_tokens
from llama_bench.shape import shape_of_size
from llama_bench.specs import Corpus, PrepareSpec, TrainSpec

SIZES = (22_000, 50_000, 115_000, 280_000, 710_000)
CONTEXT, BATCH, VOCAB = 256, 2, 1024
ARMS = ("ours", "plain", "trainer")


def spec_of(size: int, tokens: int, data: str, precision: str) -> TrainSpec:
    shape = shape_of_size(size)
    return TrainSpec(
        model=shape,
        data=data,
        tokens=tokens,
        context=CONTEXT,
        batch=BATCH,
        learning_rate=peak_rate(shape.size, tokens, BATCH * CONTEXT),
        warmup_tokens=warmup_tokens(shape.size, tokens),
        decay_share=0.2,
        decay="sqrt",
        weight_decay=0.1,
        betas=(0.9, 0.95),
        clip=1.0,
        seed=0,
        precision=precision,
    )


def windows_of(spec: TrainSpec, prepared: Path):
    """Inputs and targets of every step, in our order."""
    from llama_bench.measure.training.tokens import Order, Tokens

    tokens = Tokens(prepared.parent / "train.bin", 2, spec.context)
    order = Order(tokens.windows, spec.batch, spec.seed)
    return lambda step: tokens.take(order.step(step))


def plain(spec: TrainSpec, prepared: Path, folder: Path, steps: int) -> None:
    """What one would write in an afternoon: no log, no validation, a checkpoint at the end."""
    import torch
    from torch.nn import functional

    from llama_bench.measure.model import build
    from llama_bench.measure.training.schedule import rate

    model = build(spec.model, VOCAB, spec.context, spec.seed)
    batch = windows_of(spec, prepared)
    low = spec.precision == "bfloat16"
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.0, betas=spec.betas, weight_decay=spec.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate(spec, step, spec.learning_rate)
    )
    for step in range(steps):
        inputs, targets = batch(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = model(input_ids=inputs).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder / "checkpoint")


def trainer(spec: TrainSpec, prepared: Path, folder: Path, steps: int) -> None:
    """transformers' Trainer on the windows that we read; it shifts labels itself."""
    from transformers import Trainer, TrainingArguments

    from llama_bench.measure.model import build

    model = build(spec.model, VOCAB, spec.context, spec.seed)
    batch = windows_of(spec, prepared)
    rows = [
        {"input_ids": row, "labels": row}
        for step in range(steps)
        for row in batch(step)[0].unbind()
    ]
    asked = TrainingArguments(
        output_dir=str(folder / "states"),
        max_steps=steps,
        per_device_train_batch_size=spec.batch,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        adam_beta1=spec.betas[0],
        adam_beta2=spec.betas[1],
        max_grad_norm=spec.clip,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": spec.steps - spec.trunk_steps},
        warmup_steps=spec.warmup_steps,
        use_cpu=True,
        seed=spec.seed,
        report_to="none",
        disable_tqdm=True,
    )
    Trainer(model=model, args=asked, train_dataset=rows).train()
    model.save_pretrained(folder / "checkpoint")


def arm(name: str, spec: TrainSpec, prepared: Path, folder: Path) -> dict:
    """Seconds of one whole process, with and without what imports take, and its loss."""
    began = time.perf_counter()
    if name == "ours":
        output = folder / "record.json"
        words = ["-m", "llama_bench", "train", spec.canonical(), str(output), str(prepared)]
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        record = records.read(output)
        taken = record.seconds["total"] - record.seconds["startup"]
        compiled = record.result["compiled"]
    else:
        words = [__file__, name, spec.canonical(), str(prepared), str(folder), str(spec.steps)]
        ended = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
        told = json.loads(ended.stdout.splitlines()[-1])
        taken, compiled = told["seconds"], None
    total = time.perf_counter() - began
    found = {"total": total, "seconds": taken, "compiled": compiled}
    return found | ({"validated": told["validated"]} if name == "plain" else {})


def only_arm(name: str, words: list[str]) -> None:
    """The process of one arm that is not ours: imports first, then the clock."""
    import torch
    import transformers  # noqa: F401

    if name == "trainer":
        from transformers import Trainer  # noqa: F401
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    spec = TrainSpec.parse(words[0])
    began = time.perf_counter()
    {"plain": plain, "trainer": trainer}[name](spec, *map(Path, words[1:3]), int(words[3]))
    taken = {"seconds": time.perf_counter() - began}
    if name == "plain":
        plain_loss(spec, *map(Path, words[1:3]))
        taken["validated"] = time.perf_counter() - began
    print(json.dumps(taken))


def plain_loss(spec: TrainSpec, prepared: Path, folder: Path) -> float:
    """On the windows of ours, by the model's own forward pass."""
    import numpy as np
    import torch
    from torch.nn import functional

    from llama_bench.measure import model
    from llama_bench.measure.training.tokens import Tokens
    from llama_bench.measure.training.validation import judged

    tokens = Tokens(prepared.parent / "validation.bin", 2, spec.context)
    chosen = judged(tokens.windows, spec.context)
    loaded, losses = model.load(folder / "checkpoint"), []
    with torch.no_grad():
        for part in np.array_split(chosen, max(1, len(chosen) // 8)):
            inputs, targets = tokens.take(part)
            logits = loaded(input_ids=inputs).logits.flatten(0, 1)
            losses.append(functional.cross_entropy(logits, targets.flatten(), reduction="none"))
    return float(torch.cat(losses).mean())


def held_out_loss(spec: TrainSpec, prepared: Path, checkpoint: Path) -> float:
    import torch

    from llama_bench.measure import model
    from llama_bench.measure.training.engine import Engine
    from llama_bench.measure.training.tokens import Tokens
    from llama_bench.measure.training.validation import Validation

    engine = Engine(model.load(checkpoint), spec, "alone", torch.device("cpu"))
    held_out = Validation(Tokens(prepared.parent / "validation.bin", 2, spec.context))
    return float(held_out.losses(engine)[0].mean())


def steps_in(seconds: float, spec: TrainSpec, prepared: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        plain(spec, prepared, Path(folder), 5)
        began = time.perf_counter()
        plain(spec, prepared, Path(folder), 25)
        return max(20, round(25 * seconds / (time.perf_counter() - began)))


def compared(size: int, seconds: float, rounds: int, precision: str, prepared: Path) -> dict:
    data = prepared.parent.name
    short = spec_of(size, 1_000_000, data, precision)
    tokens = steps_in(seconds, short, prepared) * short.batch_tokens
    spec = spec_of(size, tokens, data, precision)
    taken: dict[str, list[dict]] = {name: [] for name in ARMS}
    losses = {}
    for _ in range(rounds):
        for name in ARMS:
            with tempfile.TemporaryDirectory() as folder:
                taken[name].append(arm(name, spec, prepared, Path(folder)))
                losses[name] = held_out_loss(spec, prepared, Path(folder) / "checkpoint")
    result = {
        "size": spec.model.size,
        "tokens": spec.tokens,
        "compiled": taken["ours"][-1]["compiled"],
    }
    for kind, ending in (("seconds", ""), ("total", "_total")):
        middle = {name: statistics.median(one[kind] for one in taken[name]) for name in ARMS}
        result |= {f"seconds_{name}{ending}": round(middle[name], 2) for name in ARMS}
        for name in ARMS[1:]:
            result[f"ratio_{name}{ending}"] = round(middle[name] / middle["ours"], 3)
    validated = statistics.median(one["validated"] for one in taken["plain"])
    result["ratio_validated"] = round(validated / result["seconds_ours"], 3)
    return result | {f"loss_{name}": round(losses[name], 4) for name in ARMS}


def main(words: list[str]) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if words and words[0] in ARMS:
        return only_arm(words[0], words[1:])
    import torch

    from llama_bench.measure.job import carry_out

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    seconds = float(words[0]) if words else 30.0
    rounds = int(words[1]) if len(words) > 1 else 3
    precision = words[2] if len(words) > 2 else "float32"
    sizes = [int(float(word)) for word in words[3:]] or SIZES
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(source="python-stdlib", version="benchmark", max_bytes=12_000_000)
        prepare = PrepareSpec(corpus=corpus, vocab_size=VOCAB, held_out=0.02)
        prepared = Path(folder) / prepare.id / "record.json"
        carry_out("prepare", prepare.canonical(), prepared, [])
        found = [compared(size, seconds, rounds, precision, prepared) for size in sizes]
    about = {"processor": records.processor(), "threads": torch.get_num_threads()}
    about |= {"torch": torch.__version__, "precision": precision, "rounds": rounds}
    print(json.dumps({**about, "sizes": found}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
