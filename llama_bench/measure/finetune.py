"""One model, fine-tuned on labelled examples: the loss is that of their answers alone.

The steps are those of train (training/loop.py), on a course of their own: validations, the best
state kept, an early end (tuning/course.py). What is measured of the base stands in the state, so a
resumed run does not measure it again, and ends with the very bytes of one that was never stopped.
Losses are nats per answer token; those after fine-tuning are of the weights as they are written.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from llama_bench import records
from llama_bench.measure import memory
from llama_bench.measure import model as models
from llama_bench.measure.text import tokenizer as tokenizers
from llama_bench.measure.training import parallel
from llama_bench.measure.training import state as states
from llama_bench.measure.training.engine import Engine
from llama_bench.measure.training.loop import Loop, refuse_nan
from llama_bench.measure.training.tokens import Order
from llama_bench.measure.tuning import answers, baselines, lora, model_objective
from llama_bench.measure.tuning import base as bases
from llama_bench.measure.tuning.answers import Part
from llama_bench.measure.tuning.base import Base
from llama_bench.measure.tuning.course import Course, TuningState, kept
from llama_bench.measure.tuning.judging import TOO_SHORT, Judge, Unseen
from llama_bench.records import Refusal
from llama_bench.specs import FinetuneSpec

PREDICTIONS = "predictions.parquet"


def run(spec: FinetuneSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Fine-tune to `folder`/checkpoint. `inputs`: the prepare record, the examples record, then the
    base's record or folder, where it has one.

    Raises Refusal: diverged, out-of-memory, or what the base or the examples do not allow.
    """
    device = models.device()
    meter = memory.meter(device)
    try:
        with memory.bounded(device):
            return _tuned(spec, folder, inputs, device, progress) | meter.peaks()
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise Refusal("out-of-memory", str(error).strip().splitlines()[0]) from None
        raise


def _tuned(spec: FinetuneSpec, folder: Path, inputs: list[Path], device, progress) -> dict:
    base = bases.load(spec, inputs)
    examples, corpus = records.read(inputs[1]).result, inputs[1].parent
    parts, left_out = answers.read(spec, corpus, examples["task"], base.tokenizer)
    unseen = Unseen.of(corpus, base.tokenizer_folder, spec.context) if spec.base else None
    counts = models.count(base.model)
    engine, adapted = _engine(spec, base, device)
    judge = Judge(engine, parts, unseen)
    state = states.load_newest(folder, spec.canonical(), TuningState)
    if state is not None:
        engine.take(state)
        state.model, state.optimizer = {}, {}
    engine.find_room(parts["train"].longest(spec.batch))
    state = state or _begun(spec, folder, base, judge, examples["choices"])
    course = Course(spec, engine, state, Order(len(parts["train"]), spec.batch, spec.seed), parts)
    loop = Loop(course, folder, engine, state, progress)
    pace = loop.run(parts["train"].steps(course.order, range(state.step, spec.steps)))
    _write(base, adapted, engine, course, folder)
    after = judge.measured(base.model)
    refuse_nan(after["test_loss"], state.step, spec.steps)
    states.forget(folder)
    return {
        **_about(spec, base, counts, engine, parts, examples["task"]),
        "left_out": left_out,
        "absent_labels": answers.absent_labels(parts, examples["choices"]),
        **_course_taken(course, counts, base),
        **_compared(state, after, parts, examples["choices"]),
        "forgetting_reason": TOO_SHORT.format(spec.context) if spec.base and not unseen else None,
        "tokens_per_second": pace,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }


def _engine(spec: FinetuneSpec, base: Base, device: torch.device):
    """And peft's wrapper of the model, where there is one."""
    if device.type == "cuda" and spec.precision == "float32":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    low_rank = spec.method == "lora"
    adapted = lora.insert(base.model, spec) if low_rank else None
    base.model.to(device)
    dtype = getattr(torch, spec.precision)
    objective = model_objective.of(base.model, dtype, low_rank)
    return Engine(base.model, spec, "alone", device, objective), adapted


def _begun(spec, folder: Path, base: Base, judge: Judge, choices: list | None) -> TuningState:
    """The base, measured before anything moves; kept at once, for a resumed run needs it."""
    state = TuningState(trunk=spec.canonical(), before=judge.measured(base.model))
    if not np.isfinite([state.before[key] for key in ("validation_loss", "test_loss")]).all():
        raise Refusal("non-finite", "the losses of its base are not finite")
    if choices:
        frozen, given = baselines.frozen(base.model, judge.parts, choices, judge.engine.micro_batch)
        state.before["frozen"] = frozen
        gold = judge.parts["test"].answers
        pq.write_table(pa.table({"gold": gold, "given": given}), folder / PREDICTIONS)
    state.validations = [(0, state.before["validation_loss"])]
    state.best = kept(judge.engine)
    with states.full_disk_told(folder):
        states.save_newest(judge.engine.give(state), folder)
    return state


def _write(base: Base, adapted, engine: Engine, course: Course, folder: Path) -> None:
    """The best state, as the base was stored: a Hugging Face folder, whatever was moved."""
    model = base.model
    for name, weight in engine.weights.items():
        parallel.fill(weight, course.state.best[name])
    checkpoint = folder / "checkpoint"
    with states.full_disk_told(folder):
        if adapted is not None:
            lora.save(adapted, folder / "adapter", base.named)
            lora.merge(adapted)
        _cast(model, base.dtype)
        models.save(model, checkpoint)
        tokenizers.copy(base.tokenizer_folder, checkpoint)
        _write_curve(course, folder / "curve.csv")
    _cast(model, torch.float32)


def _cast(model, dtype: torch.dtype) -> None:
    """Weights alone: rotary angles keep their digits."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


def _about(spec, base: Base, counts: dict, engine: Engine, parts, task: str) -> dict:
    return {
        "parameters": counts,
        "trained_parameters": sum(weight.numel() for weight in engine.weights.values()),
        "origin": base.origin,
        "ancestors": base.ancestors,
        "task": task,
        "fraction": spec.fraction or 1.0,
        "method": spec.method,
        "examples": {name: len(part) for name, part in parts.items()},
        "answer_tokens": {name: int(part.answer_lengths.sum()) for name, part in parts.items()},
        "learning_rate": spec.learning_rate,
    }


def _course_taken(course: Course, counts: dict, base: Base) -> dict:
    spec, state = course.spec, course.state
    return {
        "steps": state.step,
        "best_step": state.best_step,
        "epochs": state.step * spec.batch / len(course.parts["train"]),
        "stopped_early": state.step < spec.steps,
        "flops": _flops(course.lengths(0, state.step), counts, base, spec),
    }


def _flops(lengths: np.ndarray, counts: dict, base: Base, spec: FinetuneSpec) -> float:
    """As `Shape.flops_per_token` counts them, of sequences of these lengths. Weights that do not
    move have no gradient of their own: 4 operations a token instead of 6."""
    config = base.model.config.get_text_config()
    per_weight = 4 if spec.method == "lora" else 6
    attention = 6 * config.num_hidden_layers * config.hidden_size
    products = per_weight * counts["in_matrix_products"] * int(lengths.sum())
    return float(products + attention * int((lengths**2).sum()))


def _compared(state: TuningState, after: dict, parts: dict[str, Part], choices) -> dict:
    """After and before, and what no fine-tuning gives."""
    before = state.before
    forgetting = {"before": before["unseen"], "after": after["unseen"]}
    told = ("validation_loss", "test_loss", "test_loss_standard_error")
    return {
        **{key: after[key] for key in told},
        "before": {key: before[key] for key in told[:2]},
        "forgetting": forgetting if before["unseen"] else None,
        "frozen": before.get("frozen"),
        "majority": baselines.majority(parts, choices),
    }


def _write_curve(course: Course, path: Path) -> None:
    """One row per validation: the mean loss of the steps since the one before, and the rate of the
    last of them."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "train_loss", "validation_loss", "learning_rate"])
        begun = 0
        for step, loss in course.state.validations:
            since = course.state.losses[begun:step]
            told = [f"{np.mean(since):.6f}", course.rate(step - 1)] if since else ["", ""]
            table.writerow([step, told[0], f"{loss:.6f}", told[1]])
            begun = step
    os.replace(aside, path)
