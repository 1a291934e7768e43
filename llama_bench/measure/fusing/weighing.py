"""How much each member counts: evenly, as given, by its loss, or as long as it helps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llama_bench.measure.fusing.judge import Judge, Weights
from llama_bench.specs import FuseSpec


@dataclass(frozen=True)
class Weighed:
    """`choosing_losses` are the members', None where nothing was chosen by them; `joined` are a
    greedy soup's places, in the order in which they joined."""

    weights: Weights
    choosing_losses: list[float] | None = None
    joined: list[int] | None = None


def weigh(spec: FuseSpec, judge: Judge, progress) -> Weighed:
    """`mergekit` and `slerp` have weights of their own; of slerp each counts as a half."""
    places = list(range(len(spec.members)))
    way = spec.weighting or spec.method
    if way == "given":
        return Weighed(tuple(spec.weights))
    if way not in ("softmax", "greedy"):
        return Weighed(judge.evenly(places))
    losses = []
    for place in places:
        progress(place, len(places), "losses of the members")
        losses.append(judge.choosing_loss(judge.alone(place)))
    if way == "softmax":
        return Weighed(softmax(losses, spec.temperature), losses)
    joined = greedy(judge, losses, progress)
    return Weighed(judge.evenly(joined), losses, joined)


def softmax(losses: list[float], temperature: float) -> Weights:
    """exp(-L_i / T) over their sum. A temperature of nearly zero gives all to the best."""
    behind = np.array(losses) - min(losses)
    with np.errstate(over="ignore"):
        shares = np.exp(-behind / temperature)
    return tuple((shares / shares.sum()).tolist())


def greedy(judge: Judge, losses: list[float], progress) -> list[int]:
    """Wortsman et al. 2022 (arXiv 2203.05482), recipe 1: the best first, and every other that does
    not raise the loss of the mean."""
    first, *others = np.argsort(losses, kind="stable").tolist()
    joined, best = [first], losses[first]
    for done, place in enumerate(others):
        progress(done, len(others), "greedy soup")
        loss = judge.choosing_loss(judge.evenly([*joined, place]))
        if loss <= best:
            joined, best = [*joined, place], loss
    return joined
