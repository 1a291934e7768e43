"""The section on fine-tuning: for every task its sentences and tables as shown text."""

from __future__ import annotations

from typing import Any

from llama_bench.derive.tables import main_metric
from llama_bench.derive.words import answertext, finetunetext, scores, show, transfertext
from llama_bench.derive.words.finetuned import Outcome
from llama_bench.derive.words.finetunings import Tuning, tunings
from llama_bench.derive.words.measured import Number

SCORES_MEAN = (
    "All on the test part, whose documents no model of that fine-tuning learned from; with ±1.96 "
    "standard errors over items, in which is what several seeds of a fine-tuning differ by, where "
    "there are some. Gains are of the same items, tested in pairs (McNemar’s, the t or the "
    "sign-flip test, chrF by exchanging texts at random); p holds for all models of a method "
    "together, and from 0.05 on a gain is within noise."
)


def told(tables) -> dict[str, Any] | None:
    """{"words", "tasks"} as the template shows them; None of a study without fine-tuning."""
    found = [_task(tables, tuning) for tuning in tunings(tables)]
    return {"mean": SCORES_MEAN, "tasks": found} if found else None


def _task(tables, tuning: Tuning) -> dict[str, Any]:
    several = len(tuning.methods) > 1
    rows = [
        {
            "model": outcome.model,
            "about": outcome.method if several else f"{show.short(outcome.params)} parameters",
            "scores": _scores(outcome),
            "losses": _losses(outcome),
        }
        for outcome in tuning.whole
    ]
    return {
        "name": tuning.name,
        "section": tuning.section,
        "metric": scores.metric_name(tuning.metric) if tuning.metric else "score",
        "words": finetunetext.words(tables, tuning),
        "rows": rows,
        "classes": any(o.frozen for o in tuning.whole),
        "every": _every(tables, tuning),
        "confusions": _confusions(tables, tuning),
        "transfer": transfertext.told(tables, tuning.name),
    }


def _scores(outcome: Outcome) -> list[tuple[str, str]]:
    return [
        _plain(outcome.before),
        _plain(outcome.after),
        _gain(outcome.gain),
        _plain(outcome.zero),
        _gain(outcome.over_zero),
        _baseline(outcome, _plain(outcome.frozen)[0], outcome.mean("frozen_items")),
        _baseline(outcome, show.digits(outcome.majority), outcome.majority_items),
    ]


def _baseline(outcome: Outcome, shown: str, items: float | None) -> tuple[str, str]:
    """With the number of its items, where it is of fewer than the score."""
    few = items is not None and items < outcome.items
    return shown, f"of {show.exact(items)} of {show.exact(outcome.items)} items" if few else ""


def _plain(number: Number | None) -> tuple[str, str]:
    return (number.shown if number else show.NOTHING), ""


def _gain(number: Number | None) -> tuple[str, str]:
    if number is None:
        return show.NOTHING, ""
    if number.p is None:
        return number.signed, "not tested"
    p = "p < 0.001" if number.p < 1e-3 else f"p {show.digits(number.p, 2)}"
    return number.signed, p if number.apart else f"within noise, {p}"


def _losses(outcome: Outcome) -> list[tuple[str, str]]:
    mean = outcome.mean
    loss = Number(mean("test_loss"), mean("test_loss_standard_error"))
    bits = [mean(f"forgetting_bits_per_byte_{when}") for when in ("before", "after")]
    rise = "" if None in bits else f"{show.digits(bits[0])} before"
    if None in bits:  # of a model whose tokens do not hold the text's bytes
        bits = [mean(f"forgetting_loss_{when}") for when in ("before", "after")]
        rise = "" if None in bits else f"{show.digits(bits[0])} before, nats per token"
    stopped = "stopped early" if outcome.runs["stopped_early"].all() else ""
    return [
        (show.digits(mean("before_test_loss")), ""),
        (loss.shown, ""),
        (show.digits(bits[1]), rise),
        (show.exact(mean("best_step")), f"of {show.exact(mean('steps'))}; {stopped}".rstrip("; ")),
        (show.digits(mean("learning_rate"), 2), ""),
        (show.digits(mean("epochs"), 2), ""),
        (show.short(mean("trained_parameters")), ""),
        (show.digits(mean("flops"), 2), ""),
        (show.duration(mean("seconds_total")), ""),
    ]


def _every(tables, tuning: Tuning) -> dict[str, Any]:
    """Every metric of the test task, and the main one of each other task that was asked: a row per
    model and method, after and before."""
    gained = tables["gains"]
    gained = gained[(gained["finetune"] == tuning.name) & (gained["against"] == "before")]
    gained = gained[gained["fraction"] == 1]
    most = gained.groupby("model")["budget"].transform("max")
    gained = gained[(gained["budget"] == most) | most.isna()]
    columns = _columns(tables, tuning, gained)
    keys = ["parameters_without_embeddings", "model", "method"]
    rows = []
    for (_, model, method), mine in gained.groupby(keys):
        by_column = dict(list(mine.groupby(["suite", "task", "metric"], sort=False)))
        cells = [_moved(by_column.get(column)) for column in columns]
        rows.append({"model": model, "method": method, "cells": cells})
    called = scores.namer(gained)
    heads = [
        (scores.metric_name(metric), "" if suite == tuning.name else called(suite, task))
        for suite, task, metric in columns
    ]
    return {"columns": heads, "rows": rows}


def _columns(tables, tuning: Tuning, gained) -> list[tuple[str, str, str]]:
    own, columns = scores.own_metrics(tables), []
    for (suite, task), rows in gained.groupby(["suite", "task"], sort=False):
        metrics = list(dict.fromkeys(rows["metric"]))
        if suite != tuning.name:
            metrics = [main_metric.of(metrics, own.get(task))]
        columns += [(suite, task, metric) for metric in metrics]
    return sorted(columns, key=lambda column: column[0] != tuning.name)


def _moved(rows) -> tuple[str, str]:
    if rows is None:
        return show.NOTHING, ""
    after, before = rows["value"].mean(), rows["against_value"].mean()
    known = rows["told_apart"].dropna()
    noise = ", within noise" if len(known) and not known.all() else ""
    return show.digits(after), f"{show.digits(before)} before{noise}"


def _confusions(tables, tuning: Tuning) -> list[dict[str, Any]]:
    """Which answer was given for which: every model before, then after it by each method."""
    found: dict[str, list[dict[str, Any]]] = {}
    for when in ("before", *tuning.methods):
        names = ("answers", "classes")
        chosen = {name: tuning.answered(tables[name], when) for name in names}
        said = "before" if when == "before" else f"after ({when})"
        for matrix in (m for task in answertext.confusions(chosen) for m in task["models"]):
            about = f"{said}, {matrix['about']}"
            found.setdefault(matrix["model"], []).append(matrix | {"about": about})
    return [matrix for matrices in found.values() for matrix in matrices]
