"""Several models become one: a mean of their weights, or an ensemble of their outputs.

A mean costs what one model costs; an ensemble what all cost together, whatever it gains. Which
mean, and whether it is a model at all, is the question: models that share an ancestor lie in one
basin of the loss, strangers do not (lineage.py), and the line between two of them shows it. All
losses are of one text, in nats per token; what weighs the members has windows of its own
(held_out_loss.py). The result is written aside and renamed, so that a folder that exists is whole.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import transformers

from llama_bench.measure import ensemble, held_out_loss, lineage, memory
from llama_bench.measure import model as models
from llama_bench.measure.fusing import agreement, averaging, path, spherical, with_mergekit
from llama_bench.measure.fusing.judge import Judge, ask, context_of, loaded_from
from llama_bench.measure.fusing.members import Member, members_of
from llama_bench.measure.fusing.weighing import Weighed, weigh
from llama_bench.measure.training.validation import quality
from llama_bench.records import Refusal
from llama_bench.specs import FuseSpec


def run(spec: FuseSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Fuse to `folder`/checkpoint; docs/protocol.md has the keys of what is returned.

    `inputs`: the prepare record, then one per member in their order (the record of its run, or a
    pretrained model's folder; nothing for one on the Hub), and then the control's. Raises Refusal:
    refused (members that cannot be one), missing, non-finite, out-of-memory.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = models.device()
    meter = memory.meter(device)
    try:
        with memory.bounded(device):
            members = members_of(spec, inputs[1:])
            control = members.pop() if spec.control else None
            related = _refuse_misfits(spec, members, control)
            result = _fused(spec, members, control, inputs[0].parent, folder, progress)
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise Refusal("out-of-memory", str(error).strip().splitlines()[0]) from error
        raise
    family = lineage.shared([member.ancestors for member in members])
    return {
        "origin": {"members": [member.ancestors[-1] for member in members]},
        "ancestors": [*family, spec.id],
        "method": spec.method,
        "weighting": spec.weighting,
        "temperature": spec.temperature,
        "related": related,
        **result,
        **meter.peaks(),
    }


def _refuse_misfits(spec: FuseSpec, members: list[Member], control: Member | None) -> bool:
    """Whether all are related. Raises Refusal before anything is computed."""
    agreement.one_vocabulary([*members, *([control] if control else [])])
    if not spec.of_outputs and (spec.method != "mergekit" or spec.growing):
        agreement.one_shape(members)
    elif spec.line:
        agreement.one_shape(members[:2], "a line needs one shape; give the fusion line: 0")
    if spec.method == "mergekit":
        with_mergekit.refuse_unrunnable(spec.configuration, members)
    allowed = bool(spec.allow_unrelated) or spec.of_outputs
    return agreement.one_family(members, allowed)


def _fused(spec: FuseSpec, members, control, prepared: Path, folder: Path, progress) -> dict:
    context = context_of(members)
    held = held_out_loss.windows_of(prepared, context, members[0].folder)
    judge = Judge(members, spec.data, held, folder / ".mean")
    weighed = weigh(spec, judge, progress)
    progress(0, 1, "fusing")
    _write(spec, members, weighed, folder)
    loaded = loaded_from(folder / "checkpoint", members[0].trusted)
    losses = held_out_loss.losses(loaded, held.judging)
    if not np.isfinite(losses).all():
        for place in range(len(members)):
            judge.losses(judge.alone(place))  # names the member, if it is one
        raise Refusal("non-finite", "the fused model's loss is not finite")
    parameters = models.count(loaded)
    growing = None
    if spec.growing and spec.of_outputs:
        growing = _growing_ensemble(loaded, held.judging, spec.draws or 1)
    del loaded
    if spec.method not in ("slerp", "mergekit") and not spec.of_outputs:
        judge.know(weighed.weights, losses)
    best = judge.best()
    if spec.growing and not spec.of_outputs:
        growing = path.growing(judge, spec.draws or 1, progress)
    line = path.line(judge, spec.line, progress) if spec.line else None
    return {
        "parameters": parameters,
        **quality((losses, held.judging[:, 1:]), held.token_bytes),
        **_gain(best, losses),
        "control": _control(control, held.judging, best),
        "members": _rows(spec, judge, weighed),
        "joined": weighed.joined,
        "growing": growing,
        "line": line,
        "barrier": path.barrier(line) if line else None,
        "chosen_apart": held.apart,
    }


def _write(spec: FuseSpec, members: list[Member], weighed: Weighed, folder: Path) -> None:
    """`folder`/checkpoint, whole or not at all."""
    folders = [member.folder for member in members]
    aside, target = folder / ".checkpoint", folder / "checkpoint"
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    if spec.of_outputs:
        ensemble.write(folders, list(weighed.weights), spec.method, aside)
    elif spec.method == "mergekit":
        with_mergekit.write(spec.configuration, members, aside)
    elif spec.method == "slerp":
        averaging.write(folders, spherical.shares(folders), aside)
    else:
        averaging.write(folders, averaging.in_every_tensor(weighed.weights), aside)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def _growing_ensemble(loaded, windows: np.ndarray, draws: int) -> list[dict]:
    sets = path.sets_of_members(len(loaded.members), draws)
    found = ensemble.losses_of_sets(loaded, windows, [each for some in sets for each in some])
    told = iter(found.mean(axis=(1, 2)).tolist())
    return [path.grown(some, [next(told) for _ in some]) for some in sets]


def _rows(spec: FuseSpec, judge: Judge, weighed: Weighed) -> list[dict]:
    chosen = weighed.choosing_losses
    return [
        {
            "verb": member.named.verb,
            "run": member.named.run,
            "pretrained": None if member.named.run else member.ancestors[-1],
            "weight": None if spec.method == "mergekit" else weighed.weights[place],
            "loss": judge.loss(judge.alone(place)),
            "choosing_loss": None if chosen is None else chosen[place],
        }
        for place, member in enumerate(judge.members)
    ]


def _control(control: Member | None, windows: np.ndarray, best: np.ndarray) -> dict | None:
    if control is None:
        return None
    losses = ask(control.folder, windows, control.trusted)
    if not np.isfinite(losses).all():
        raise Refusal("non-finite", f"{control.name}: its loss is not finite")
    return {"loss": float(losses.mean()), **_gain(best, losses)}


def _gain(best: np.ndarray, losses: np.ndarray) -> dict:
    """Over the best member, on the same windows."""
    gains = (best - losses).mean(axis=1)
    error = float(gains.std(ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else None
    return {"gain": float(gains.mean()), "gain_standard_error": error}
