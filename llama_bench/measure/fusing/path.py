"""Losses along a line between two models, and as more and more members join.

The barrier (Entezari et al. 2022, arXiv 2110.06296, definition 2.1) is how far the loss of
(1 - a) x first + a x second rises, at its highest, above the straight line between their losses.
Models of one basin have none; between strangers it is a mountain.
"""

from __future__ import annotations

import math

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


def growing(judge: Judge, progress) -> list[dict[str, float]]:
    """Of the means of the first 1, 2, ... members' weights."""
    count = len(judge.members)
    rows = []
    for members in range(1, count + 1):
        progress(members - 1, count, "a growing number of members")
        loss = judge.loss(judge.evenly(list(range(members))))
        rows.append({"members": members, "loss": loss})
    return rows
