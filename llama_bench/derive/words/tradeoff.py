"""Quality against cost: which models there are, what each reached, what one reader pays for it.

A training's quality goes with the cost of its shape. Costs are those of decoding at the least batch
and the longest context, in every way that was probed but for quantized weights: their quality is
not that of the model that was scored. On the Pareto front lies what nothing else beats: no model
is as good or better at a lower cost, none better at the same cost. Noise is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_bench.derive.words import scores, ways

# column of `points` -> what it is called
COSTS = {
    "seconds": "Seconds per token",
    "bytes": "Peak memory (MiB)",
    "joules": "Joules per token",
}
QUANTIZED = ("int8", "int4")
_KEYS = ["model", "origin", "budget"]


@dataclass(frozen=True)
class Quality:
    """One measure of how good models are: `rows` has model, origin, budget, value, error. `about`
    are the task, metric and the like that it is of, under the names of `scores`."""

    name: str
    title: str
    axis: str
    rows: Any
    lower_is_better: bool
    about: dict[str, Any]


def qualities(tables) -> list[Quality]:
    """The one that compares most models first: where some were trained elsewhere, bits per byte of
    the same text, else the loss."""
    loss, others = _loss(tables["trainings"]), _scores(tables)
    if loss is None:
        return sorted(others, key=lambda each: not each.name.endswith("bits_per_byte"))
    shared = [each for each in others if (each.rows["origin"] == "pretrained").any()]
    shared = [each for each in shared if each.name.endswith("bits_per_byte")][:1]
    rest = [each for each in others if each not in shared]
    return [*shared, loss, *rest]


def _loss(trainings) -> Quality | None:
    rows = trainings.dropna(subset=["loss"])
    if not len(rows):
        return None
    rows = rows.groupby(_KEYS, as_index=False, dropna=False).agg(
        value=("loss", "mean"), error=("loss_standard_error", "mean")
    )
    axis, about = "Held-out loss (nats per token)", {"metric": "loss"}
    return Quality("loss", "Held-out loss", axis, rows, True, about)


def _scores(tables) -> list[Quality]:
    found = []
    for keys, rows in scores.main(tables).groupby(scores.KEYS, dropna=False):
        about = dict(zip(scores.KEYS, keys, strict=True))
        suite, task, metric = (about[key] for key in ("suite", "task", "metric"))
        lower = not bool(rows["higher_is_better"].iloc[0])
        rows = rows.groupby(_KEYS, as_index=False, dropna=False).agg(
            value=("value", "mean"), error=("standard_error", "mean")
        )
        called, better = scores.metric_name(metric), "lower" if lower else "higher"
        axis = f"{called[0].upper()}{called[1:]} ({better} is better)"
        name, title = f"{suite}-{task}-{metric}", f"{task}: {called}"
        found.append(Quality(name, title, axis, rows, lower, about))
    return found


def costs(tables):
    """A row per model and way: what one token costs one reader; null where it was not measured."""
    cells = tables["cells"].dropna(subset=["median_seconds"])
    cells = ways.corner(cells[~cells["precision"].isin(QUANTIZED)])
    cells = cells.drop_duplicates(["model", *ways.COLUMNS])
    peaks = tables["memory"][["run", "model", "phase", "batch", "context", "peak_bytes"]]
    peaks = peaks.drop_duplicates(["run", "model", "phase", "batch", "context"])
    cells = cells.merge(peaks, on=["run", "model", "phase", "batch", "context"], how="left")
    return cells.assign(
        seconds=cells["median_seconds"] / cells["tokens"],
        bytes=cells["peak_bytes"] / 2**20,
        joules=cells["joules_per_token"],
    )


def points(quality: Quality, costs, cost: str):
    """The rows of `costs` with the quality of each training of the model, and `front`."""
    known = costs.dropna(subset=[cost]).drop(columns=["origin"])
    found = quality.rows.merge(known, on="model", how="inner").reset_index(drop=True)
    sign = 1 if quality.lower_is_better else -1
    return found.assign(front=front(found[cost], sign * found["value"]))


def front(cost, badness) -> np.ndarray:
    """Which points (cost, badness), both better when lower, no other point dominates."""
    cost, badness = np.asarray(cost, float), np.asarray(badness, float)
    kept = np.zeros(len(cost), bool)
    for place in range(len(cost)):
        no_worse = (cost <= cost[place]) & (badness <= badness[place])
        better = (cost < cost[place]) | (badness < badness[place])
        kept[place] = not (no_worse & better).any()
    return kept
