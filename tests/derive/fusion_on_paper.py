"""Fusions written from known gains, as records: relatives that merge, strangers that do not."""

from __future__ import annotations

import math

import pyarrow
import results_on_paper as results
from pyarrow import parquet
from study_on_paper import DATA, Paper, law, shape_of_size

MEMBERS = (0.0, 0.012, 0.02, 0.015)  # losses above the first member's, nats per token
GAINS = {"uniform": 0.03, "softmax": 0.031, "greedy": 0.032, "mixture": 0.045, "product": 0.04}
CONTROL_GAIN = 0.15
ERROR = 0.004
SURE = {"loss_standard_error": 0.02}
MERGED = {"E": 2.5, "A": 0.08, "b": 0.6}  # of growth, less the first member's loss
DESTROYED = 3.5


def fuse(paper: Paper, label: str, name="soup", budget=800_000, related=True, **how) -> None:
    """All methods on one size: members are the ladder's training and others made for it. `how`:
    methods {name: gain}, offsets of the members, control, temperature."""
    shape = shape_of_size(paper.sizes[label])
    more = 1 + 0.2 * math.log10(shape.size / 50_000)
    loss, offsets = law(shape.size, budget), how.get("offsets", MEMBERS)
    ids = [f"{label}-{budget}-s0"]
    for place, offset in enumerate(offsets[1:], start=1):
        named = {"role": "member", "fuse": name, "place": place}
        folder = paper.train(label, shape, budget, 0, named, {"loss": loss + offset, **SURE})
        ids.append(folder.name)
    labels = {"model": label, "budget": budget, "seed": 0, "fuse": name}
    if how.get("control", True):
        named, changed = {"role": "control", "fuse": name}, {"loss": loss - CONTROL_GAIN, **SURE}
        folder = paper.train(label, shape, len(offsets) * budget, 0, named, changed)
        labels["control"] = folder.name
    for method, gain in how.get("methods", GAINS).items():
        result = fused(
            shape, method, loss, offsets, ids, gain * more, related, how.get("temperature", 1.0)
        )
        spec = {"members": [{"verb": "train", "run": run} for run in ids], "method": method}
        spec |= {"data": DATA, "temperature": result["temperature"]}
        id = f"{method}-of-{len(ids)}-{label}-{budget}-{name}"
        paper.add("fuse", id, labels | {"method": method}, result, spec)


def tuned(paper: Paper, label: str, ids=("tuned-a", "tuned-b"), budget=800_000) -> None:
    """Two fine-tunings of one base, whose fusion also judged one with their steps together."""
    shape, name = shape_of_size(paper.sizes[label]), "tuned"
    loss = law(shape.size, budget)
    labels = {"model": label, "budget": budget, "seed": 0, "fuse": name, "control": "tuned-ab"}
    for method, gain in (("uniform", 0.02), ("mixture", 0.03)):
        result = fused(shape, method, loss, (0.0, 0.01), ids, gain, True, 1.0)
        for member in result["members"]:
            member["verb"] = "finetune"
        if method == "uniform":
            control = {"loss": loss + 0.05, "gain": -0.05, "gain_standard_error": ERROR}
            result["control"] = control
        spec = {"members": [{"verb": "finetune", "run": run} for run in ids], "method": method}
        id = f"{method}-of-2-{label}-{name}"
        paper.add("fuse", id, labels | {"method": method}, result, spec | {"data": DATA})


def fused(shape, method, loss, offsets, ids, gain, related, temperature) -> dict:
    """The result of one run, by the formulas above."""
    count, of_outputs = len(offsets), method in ("mixture", "product")
    weights = [1 / count] * count
    if method == "softmax":
        shares = [math.exp(-offset / temperature) for offset in offsets]
        weights = [share / sum(shares) for share in shares]
    parameters = shape.parameters(results.VOCAB)
    members = zip(ids, weights, offsets, strict=True)
    line = 0.001 if related else DESTROYED
    return {
        "parameters": {k: v * (count if of_outputs else 1) for k, v in parameters.items()},
        "origin": {"members": ids},
        "ancestors": ["trunk-1"] if related else [],
        "method": method,
        "weighting": None,
        "temperature": temperature if method == "softmax" else None,
        "related": related,
        "members": [
            {"verb": "train", "run": run, "weight": weight, "loss": loss + offset}
            | {"choosing_loss": loss + offset + 0.01}
            for run, weight, offset in members
        ],
        "loss": loss - gain,
        "loss_standard_error": 0.02,
        "bits_per_byte": (loss - gain) / 3.5 / math.log(2),
        "validation_tokens": 40_960,
        "gain": gain,
        "gain_standard_error": ERROR,
        "joined": [0, 3] if method == "greedy" else None,
        "growing": growing(loss, count, gain) if method in ("uniform", "mixture") else None,
        "line": straight(loss, offsets, line) if method == "uniform" else None,
        "barrier": line if method == "uniform" else None,
        "chosen_apart": True,
        "peak_bytes": 10**8,
    }


def growing(loss: float, count: int, gain: float) -> list[dict]:
    """The merging law from the first member's loss on; destroyed models grow worse instead."""
    if gain < 0:
        return [_grown(k, loss - gain * (k - 1) / (count - 1)) for k in _to(count)]
    first = MERGED["E"] + MERGED["A"] / (1 + MERGED["b"])
    at = {k: MERGED["E"] + MERGED["A"] / (k + MERGED["b"]) - first for k in _to(count)}
    return [_grown(k, loss + at[k], math.comb(count, k)) for k in _to(count)]


def _grown(members: int, loss: float, sets: int = 1) -> dict:
    return {"members": members, "loss": loss, "sets": sets}


def _to(count: int) -> range:
    return range(1, count + 1)


def straight(loss: float, offsets, rise: float) -> list[dict]:
    """A parabola that is highest in the middle, above the line between the ends."""
    points = [0.0, 0.25, 0.5, 0.75, 1.0]
    return [{"share": t, "loss": loss + t * offsets[1] + 4 * rise * t * (1 - t)} for t in points]


def strangers(paper: Paper, label: str) -> None:
    """Three seeds, whose average is destroyed and whose ensemble is the better."""
    how = {"methods": {"uniform": -DESTROYED, "mixture": 0.06}, "offsets": MEMBERS[:3]}
    fuse(paper, label, "seeds", related=False, **how)


def several(root, **how) -> Paper:
    """A ladder, relatives and strangers at all of its sizes."""
    paper = Paper(root, **{"budgets": (800_000,), **how})
    for label, size in paper.sizes.items():
        for budget in paper.budgets:
            paper.train(label, shape_of_size(size), budget, changed=SURE)
        fuse(paper, label)
        strangers(paper, label)
    return paper


def answered(paper: Paper, of: dict, labels: dict, right: int, items=40) -> str:
    """An evaluation of one task of multiple choice, of which the first `right` items are right;
    returns its id."""
    said = [results.choice(n, [-1.0, -2.0 if n < right else -0.5], 0) for n in range(items)]
    id = f"{next(iter(of.values()))}-asked"
    result = {"parameters": shape_of_size(50_000).parameters(results.VOCAB)}
    result |= {"scores": results.scores_of(said), "answers": results.answers_of(said)}
    folder = paper.add(
        "evaluate", id, labels | {"suite": "heldout"}, result, of | {"tasks": ["choose"]}
    )
    rows = [row for item in said for row in item["rows"]]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "items.parquet")
    return id


def probe_ensemble(paper: Paper, label: str, count: int) -> None:
    """As many models as one: each number `count` times that of the one."""
    shape, faster = shape_of_size(paper.sizes[label]), 1 / count
    result = results.probe(shape, faster=faster)
    for name in result["parameters"]:
        result["parameters"][name] *= count
    for cell in result["cells"]:
        cell["peak_bytes"] *= count
    sizes = {key: shape.model_dump()[key] for key in ("layers", "width", "heads", "kv_heads")}
    facts = {**sizes, "head_size": shape.head_size, "vocab_size": results.VOCAB}
    result |= {"shape": None, "members": [facts] * count}
    labels = {"model": label, "fuse": "soup", "members": count}
    spec = {"members": [shape.model_dump()] * count, "precision": "float32"}
    paper.add("probe", f"{count}-of-{label}-cpu", labels, result, spec, threads=2)
