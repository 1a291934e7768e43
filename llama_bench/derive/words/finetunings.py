"""Fine-tuned models held against what they came from, size by size.

A gain is honest only beside what no fine-tuning takes: the base on the same task, the commonest
answer, a logistic regression on the base's frozen features, and the same shape that began from
zero. Of a model that was fine-tuned with several seeds the means are told; the error of a mean is
that over items (the seeds answer the same ones) and that between seeds together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from llama_bench.derive.tables import gains
from llama_bench.derive.words import show
from llama_bench.derive.words.finetuned import Outcome
from llama_bench.derive.words.measured import Number, less
from llama_bench.derive.words.scores import WIDTH, companion, interval, telling

METHODS = ("full", "lora")  # in the order in which they are told
RIGHT = ("acc", "exact_match")  # metrics that count right answers, as the majority's share does


@dataclass(frozen=True)
class Tuning:
    """One fine-tuning of the study: its task, main metric, labelled examples, and outcomes of all
    fractions, smallest model first. `zero` are rows of `finetunings` from random weights."""

    name: str
    task: str
    metric: str
    parts: Any
    outcomes: tuple[Outcome, ...]
    zero: Any

    @property
    def whole(self) -> list[Outcome]:
        """Those that learned from all of the labelled data."""
        return [o for o in self.outcomes if o.fraction == 1]

    @property
    def by_method(self) -> dict[str, list[Outcome]]:
        """Those of each method."""
        return {name: [o for o in self.whole if o.method == name] for name in self.methods}

    @property
    def by_data(self):
        """A frame of every amount of labelled data: `model`, `params`, `method`, `zero`,
        `examples`, test `loss`, `score` and its `error`."""
        import pandas

        tuned = [(o.model, o.params, o.method, False, o.runs, o.after) for o in self.outcomes]
        zero = {(o.model, o.fraction): o.zero for o in self.outcomes}
        keys = ["parameters_without_embeddings", "model", "fraction"]
        begun = [
            (model, params, "full", True, runs, zero.get((model, fraction)))
            for (params, model, fraction), runs in self.zero.groupby(keys)
        ]
        rows = [
            (*about, runs["examples"].mean(), runs["test_loss"].mean(), *_parts(score))
            for *about, runs, score in (*tuned, *begun)
        ]
        columns = ("model", "params", "method", "zero", "examples", "loss", "score", "error")
        return pandas.DataFrame(rows, columns=columns).astype({"score": float, "error": float})

    def answered(self, frame, when: str):
        """The rows of a table of evaluations that are of the test task: of the bases `before`, or
        of what was fine-tuned on all of the data by the method named `when`."""
        frame = frame[(frame["suite"] == self.name) & (frame["task"] == self.task)]
        if when == "before":
            return frame[frame["before"].notna()]
        tuned = (frame["method"] == when) & (frame["fraction"] == 1)
        return frame[tuned & frame["from_zero"].isna()]

    def over_majority(self, outcome: Outcome) -> Number:
        """The score less the share that always giving the commonest answer has right; apart where
        the score's interval leaves that out, whatever it is on items that it is not known of."""
        after, majority = outcome.after, outcome.majority
        ends = interval(self.metric, after.value, after.error, outcome.items)
        low, high = ends or (-math.inf, math.inf)
        off = outcome.beyond(outcome.majority_items)
        apart = not low - off <= majority <= high + off
        return Number(after.value - majority, after.error, apart=apart)

    def over_frozen(self, outcome: Outcome) -> Number:
        """The score less that of the frozen features, not paired; apart where it is, whatever
        these would answer on items that they were not asked."""
        found = less(outcome.after, outcome.frozen)
        error = math.inf if found.error is None else found.error
        off = outcome.beyond(outcome.mean("frozen_items"))
        return replace(found, apart=abs(found.value) > WIDTH * error + off)

    def figure(self, what: str) -> str:
        """A figure's name, which is a file's too."""
        safe = "".join(c if c.isalnum() or c in "._" else "-" for c in self.name)
        return f"finetuning-{safe}-{what}"

    @property
    def section(self) -> str:
        """The part of the report that its figures stand in."""
        return f"finetuning-{self.name}"

    @property
    def methods(self) -> list[str]:
        return sorted({o.method for o in self.outcomes}, key=METHODS.index)


def tunings(tables) -> list[Tuning]:
    """Every fine-tuning that has examples or a run, in the order of the study."""
    named = [*tables["examples"]["finetune"], *tables["finetunings"]["finetune"]]
    return [_tuning(tables, name) for name in dict.fromkeys(named)]


def in_part(tables, tuning: Tuning) -> Tuning | None:
    """The same by a score that counts answers right in part, where they are written: few are
    exactly right. None of labels."""
    scores = tables["scores"]
    metrics = scores.loc[scores["suite"] == tuning.name, "metric"]
    found = companion(metrics, tuning.metric) if tuning.metric == "exact_match" else None
    return _tuning(tables, tuning.name, found) if found else None


def _tuning(tables, name: str, metric: str | None = None) -> Tuning:
    parts = tables["examples"][tables["examples"]["finetune"] == name]
    runs = tables["finetunings"]
    runs = _largest(runs[(runs["finetune"] == name) & (runs["status"] == "ok")])
    tasks = [*parts["task"].dropna(), *runs["task"].dropna()]
    task = tasks[0] if tasks else name
    scores = tables["scores"]
    scores = scores[(scores["suite"] == name) & (scores["task"] == task)].dropna(subset=["value"])
    own = dict(zip(parts["task"], parts["metric"], strict=True)).get(task)
    metric = metric or telling(scores, own)
    compared = tables["gains"]
    compared = compared[(compared["finetune"] == name) & (compared["suite"] == name)]
    mine = (scores[scores["metric"] == metric], compared[compared["metric"] == metric])
    zero = runs["from_zero"].notna()
    labels = tables["labels"]
    shares = _label_shares(labels[(labels["finetune"] == name) & (labels["part"] == "test")])
    keys = ["parameters_without_embeddings", "model", "method", "fraction"]
    outcomes = [_outcome(*key, rows, *mine, shares) for key, rows in runs[~zero].groupby(keys)]
    return Tuning(name, task, metric, parts, tuple(outcomes), runs[zero])


def _label_shares(labels) -> dict[str, float]:
    counts = labels.groupby("label")["examples"].sum()
    return dict(counts / counts.sum())


def _largest(runs):
    """Each model at the largest budget that was fine-tuned; one trained elsewhere has none, and a
    shape that began from zero may have none."""
    most = runs.groupby("model")["budget"].transform("max")
    return runs[(runs["budget"] == most) | runs["budget"].isna()]


def _outcome(params, model, method, fraction, runs, scores, compared, shares) -> Outcome:
    budget = runs["budget"].iloc[0]
    scores = scores[scores["model"] == model]
    zero = scores[(scores["fraction"] == fraction) & scores["from_zero"].notna()]
    scores = scores[scores["from_zero"].isna() & _same(scores["budget"], budget)]
    tuned = scores[(scores["fraction"] == fraction) & (scores["method"] == method)]
    compared = compared[
        (compared["model"] == model)
        & (compared["method"] == method)
        & (compared["fraction"] == fraction)
        & _same(compared["budget"], budget)
    ]
    return Outcome(
        model=model,
        params=float(params),
        origin=runs["origin"].iloc[0],
        method=method,
        fraction=float(fraction),
        runs=runs,
        after=_number(tuned, "value"),
        before=_number(scores[scores["before"].notna()], "value"),
        zero=_number(zero, "value"),
        gain=_number(compared[compared["against"] == gains.BEFORE], "difference"),
        over_zero=_number(compared[compared["against"] == gains.FROM_ZERO], "difference"),
        label_shares=shares,
    )


def _same(budgets, budget):
    return budgets.isna() if show.absent(budget) else budgets == budget


def _number(rows, column: str) -> Number | None:
    if not len(rows):
        return None
    values, errors = rows[column], rows["standard_error"]
    error = None
    if errors.notna().all():
        between = values.std() / math.sqrt(len(rows)) if len(rows) > 1 else 0.0
        error = math.hypot(errors.mean(), between)
    p = rows["p_adjusted"].max() if "p_adjusted" in rows else None
    p = None if show.absent(p) else float(p)
    apart = None if p is None else bool(rows["told_apart"].all())
    return Number(float(values.mean()), error, p, apart)


def _parts(number: Number | None) -> tuple[float | None, float | None]:
    return (number.value, number.error) if number else (None, None)
