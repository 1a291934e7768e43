"""Which tasks can tell sizes apart at this scale: signal against noise, task by task.

    signal = max - min of the mean scores of k levels
    noise  = standard deviation of one such mean, from what should not move it
    ratio  = signal / noise

the signal-to-noise ratio of Heineman et al. 2025 (Signal and Noise, arXiv 2508.13144): their
relative dispersion over their relative standard deviation, from both of which the mean cancels.
The levels are sizes, each at its largest budget, or the budgets of the largest size. Noise is, in
this order:

- seeds: the standard deviation between seeds, pooled, over the root of their number;
- else the larger of two: items, the standard error of the scores; and checkpoints, how far the
  scores of a size's budgets lie off a straight line in log tokens (theirs are the last checkpoints
  of one training; budgets differ by design, so a line is taken out first).

Even k scores of equal models have a range of several standard deviations, so a ratio says something
only against `needed`: what the range of k normal numbers over an estimate of their standard
deviation exceeds once in twenty times (Tukey's studentised range). Scores share their items, and so
part of the noise of items: where that is the noise, the screen errs towards caution, and the paired
tests (judging/paired.py) see more.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from llama_bench.derive.tables import study_tables

CHANCE = 0.05
LEAST_FREEDOM = 2  # of a standard deviation that is believed at all
KEYS = ("suite", "task", "metric", "filter")

Row = dict[str, Any]


def rows(scores: list[Row]) -> Iterator[tuple[str, Row]]:
    """Rows of `screen` from those of `scores`: of trained models where there are some."""
    known = [s for s in scores if s["value"] is not None and s["state"] is s["data"] is None]
    trained = [score for score in known if score["origin"] == "trained"]
    tasks = defaultdict(list)
    for score in trained or known:
        tasks[tuple(score[key] for key in KEYS)].append(score)
    for about, mine in tasks.items():
        for over, levels in (("sizes", _sizes(mine)), ("budgets", _budgets(mine))):
            if len(levels) > 1:
                found = _screened(levels, mine)
                values = dict(zip(KEYS, about, strict=True)) | {"over": over} | found
                yield "screen", study_tables.row("screen", **values)


def _sizes(scores: list[Row]) -> list[list[Row]]:
    """Per model the scores, one a seed, at its largest budget."""
    models = defaultdict(list)
    for score in scores:
        models[score["model"]].append(score)
    largest = {model: max(s["budget"] or 0 for s in mine) for model, mine in models.items()}
    return [
        [score for score in mine if (score["budget"] or 0) == largest[model]]
        for model, mine in models.items()
    ]


def _budgets(scores: list[Row]) -> list[list[Row]]:
    size = max((s["parameters_without_embeddings"] or 0) for s in scores)
    budgets = defaultdict(list)
    for score in scores:
        if (score["parameters_without_embeddings"] or 0) == size and score["budget"]:
            budgets[score["budget"]].append(score)
    return [budgets[budget] for budget in sorted(budgets)]


def _screened(levels: list[list[Row]], scores: list[Row]) -> Row:
    means = [math.fsum(s["value"] for s in level) / len(level) for level in levels]
    signal = max(means) - min(means)
    errors = [s["standard_error"] for level in levels for s in level]
    kinds = {
        "seeds": _seeds(scores, min(map(len, levels))),
        "items": None if None in errors else (_root_mean_square(errors), math.inf),
        "checkpoints": _checkpoints(scores),
    }
    found = {"levels": len(levels), "signal": signal}
    found |= {f"noise_{kind}": noise and noise[0] for kind, noise in kinds.items()}
    known = {kind: noise for kind, noise in kinds.items() if noise is not None}
    if not known:
        return found
    source = "seeds" if "seeds" in known else max(known, key=lambda kind: known[kind][0])
    noise, freedom = known[source]
    needed = _needed(len(levels), freedom)
    return found | {
        "noise": noise,
        "noise_source": source,
        "freedom": None if math.isinf(freedom) else freedom,
        "ratio": signal / noise if noise else None,
        "needed": needed,
        "told_apart": signal > needed * noise,
    }


def _root_mean_square(values: list[float]) -> float:
    return math.sqrt(math.fsum(value**2 for value in values) / len(values))


def _grouped(scores: list[Row], *names: str) -> list[list[Row]]:
    groups = defaultdict(list)
    for score in scores:
        groups[tuple(score[name] for name in names)].append(score)
    return list(groups.values())


def _seeds(scores: list[Row], seeds: int) -> tuple[float, int] | None:
    """(standard deviation of a mean over `seeds`, its degrees of freedom)."""
    squares, freedom = 0.0, 0
    for group in _grouped(scores, "model", "budget"):
        values = np.array([score["value"] for score in group])
        squares += float(((values - values.mean()) ** 2).sum())
        freedom += len(values) - 1
    if freedom < LEAST_FREEDOM:
        return None
    return math.sqrt(squares / freedom / seeds), freedom


def _checkpoints(scores: list[Row]) -> tuple[float, int] | None:
    """The same of a score about the straight line, in log tokens, of its training's budgets."""
    squares, freedom = 0.0, 0
    for group in _grouped(scores, "model", "seed"):
        points = [(math.log(s["budget"]), s["value"]) for s in group if s["budget"]]
        if len({x for x, _ in points}) < 3:
            continue
        x, y = np.array(points).T
        line = np.polynomial.polynomial.polyfit(x - x.mean(), y, 1)
        squares += float(((y - np.polynomial.polynomial.polyval(x - x.mean(), line)) ** 2).sum())
        freedom += len(points) - 2
    return (math.sqrt(squares / freedom), freedom) if freedom >= LEAST_FREEDOM else None


@cache
def _needed(levels: int, freedom: float) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - CHANCE, levels, min(freedom, 1e6)))
