"""Losses along a line between two models, and as more and more members join.

The barrier (Entezari et al. 2022, arXiv 2110.06296, definition 2.1) is how far the loss of
(1 - a) x first + a x second rises, at its highest, above the straight line between their losses.
Models of one basin have none; between strangers it is a mountain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from random import Random

import numpy as np

from llama_bench.measure.fusing.judge import Judge


def line(judge: Judge, points: int, progress) -> list[dict[str, float]]:
    """From the first member to the second, both among the points."""
    rows, others = [], len(judge.members) - 2
    for done, share in enumerate(np.linspace(0, 1, points).tolist()):
        progress(done, points, "the line between two members")
        loss = judge.loss((1 - share, share, *[0.0] * others))
        rows.append({"share": share, "loss": loss})
    return rows


def barrier(rows: list[dict[str, float]]) -> float | None:
    """None where a point of the line gives no number."""
    first, last = rows[0]["loss"], rows[-1]["loss"]
    rises = [row["loss"] - (first + row["share"] * (last - first)) for row in rows]
    return max(rises) if all(map(math.isfinite, rises)) else None


def growing(judge: Judge, draws: int, progress) -> list[dict[str, float]]:
    """Of the means of 1, 2, ... members' weights."""
    rows = []
    for sets in sets_of_members(len(judge.members), draws):
        progress(len(rows), len(judge.members), "a growing number of members")
        rows.append(grown(sets, [judge.loss(judge.evenly(list(places))) for places in sets]))
    return rows


def sets_of_members(count: int, draws: int) -> list[list[tuple[int, ...]]]:
    """For each number of members the sets whose mean loss is told: all, if they are no more than
    `draws` (so that every member counts alike, whatever their order), else as many drawn at random,
    always the same; of one draw the first ones. Every member alone is known anyway."""
    if draws == 1:
        return [[tuple(range(size))] for size in range(1, count + 1)]
    random, found = Random(count), []
    for size in range(1, count + 1):
        if size == 1 or math.comb(count, size) <= draws:
            found.append(list(combinations(range(count), size)))
            continue
        drawn: dict[tuple[int, ...], None] = {}
        while len(drawn) < draws:
            drawn[tuple(sorted(random.sample(range(count), size)))] = None
        found.append(list(drawn))
    return found


def grown(sets: list[tuple[int, ...]], losses: Sequence[float]) -> dict[str, float]:
    """One row: the mean over sets of as many members."""
    return {"members": len(sets[0]), "loss": math.fsum(losses) / len(sets), "sets": len(sets)}
