"""Which tasks can tell sizes apart at this scale: signal against noise, task by task.

    signal = max - min of the mean scores of k levels
    noise  = standard deviation of one such mean, from what should not move it
    ratio  = signal / noise

the signal-to-noise ratio of Heineman et al. 2025 (Signal and Noise, arXiv 2508.13144): their
relative dispersion over their relative standard deviation, from both of which the mean cancels.
The levels are sizes, each at its largest budget, or the budgets of the largest size. Noise is, in
this order:

- seeds: the standard deviation between seeds, pooled, over the root of their number;
- else the larger of two: items, and checkpoints, which is how far the scores of all budgets lie off
  a straight line in log tokens for each size and a level for each budget (theirs are the last
  checkpoints of one training; budgets differ by design, so that is taken out first). All models
  answer the same items, so what counts of these is the noise of a difference on the same items
  (tables/pairs.py), over the root of two; where a metric has no such pairs it is the standard error
  of the score, which is too cautious.

Even k scores of equal models have a range of several standard deviations, so a ratio says something
only against `needed`: what the range of k normal numbers over an estimate of their standard
deviation exceeds once in twenty times (Tukey's studentised range).
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


def rows(scores: list[Row], pairs: list[Row]) -> Iterator[tuple[str, Row]]:
    """Rows of `screen` from those of `scores` and `pairs`; of trained models if there are some."""
    beside = ("state", "data", "finetune", "fuse", "before")
    known = [s for s in scores if s["value"] is not None and not any(s[name] for name in beside)]
    trained = [score for score in known if score["origin"] == "trained"]
    tasks = defaultdict(list)
    for score in trained or known:
        tasks[tuple(score[key] for key in KEYS)].append(score)
    differences = defaultdict(list)
    for pair in pairs:
        if pair["origin"] == ("trained" if trained else pair["origin"]):
            differences[tuple(pair[key] for key in KEYS)].append(pair["standard_error"])
    for about, mine in tasks.items():
        for over, levels in (("sizes", _sizes(mine)), ("budgets", _budgets(mine))):
            if len(levels) > 1:
                found = _screened(levels, mine, differences[about])
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


def _screened(levels: list[list[Row]], scores: list[Row], differences: list) -> Row:
    means = [math.fsum(s["value"] for s in level) / len(level) for level in levels]
    signal = max(means) - min(means)
    kinds = {
        "seeds": _seeds(scores, min(map(len, levels))),
        "items": _items([s["standard_error"] for level in levels for s in level], differences),
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
        "told_apart": _told_apart(signal, needed * noise),
    }


def _told_apart(signal: float, reach: float) -> bool | None:
    """Items that all went one way show no noise, which is not to say that there is none: a signal
    beside no noise is not judged."""
    return None if reach == 0 and signal > 0 else signal > reach


def _items(errors: list, differences: list) -> tuple[float, float] | None:
    """Root mean square of one score's noise over items: from differences, else from errors."""
    paired = bool(differences) and None not in differences
    values, share = (differences, 2) if paired else (errors, 1)
    if None in values:
        return None
    return math.sqrt(math.fsum(value**2 for value in values) / len(values) / share), math.inf


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
    """The same of a score about what its size and budget make of it: least squares with a straight
    line in log tokens for each size, and a level for each budget."""
    scores = [score for score in scores if score["budget"]]
    models, budgets = ([score[name] for score in scores] for name in ("model", "budget"))
    if len(set(budgets)) < 3:
        return None
    sizes = np.array([[model == each for each in dict.fromkeys(models)] for model in models], float)
    levels = np.array([[budget == each for each in set(budgets)] for budget in budgets], float)
    tokens = np.log(np.array(budgets, float))
    design = np.hstack([sizes, sizes * (tokens - tokens.mean())[:, None], levels])
    values = np.array([score["value"] for score in scores])
    found, _, rank, _ = np.linalg.lstsq(design, values, rcond=1e-9)
    freedom = len(scores) - int(rank)
    if freedom < LEAST_FREEDOM:
        return None
    noise = math.sqrt(float(((values - design @ found) ** 2).sum()) / freedom)
    rounding = 1e-12 * float(np.abs(values).max())  # scores that are all the same have no noise
    return (noise if noise > rounding else 0.0), freedom


@cache
def _needed(levels: int, freedom: float) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - CHANCE, levels, min(freedom, 1e6)))
