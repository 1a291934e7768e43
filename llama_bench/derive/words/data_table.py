"""The section on training texts: its sentences and tables as shown text."""

from __future__ import annotations

from typing import Any

from llama_bench.derive.words import datatext, show
from llama_bench.derive.words.datatext import Gain, Text
from llama_bench.derive.words.laddertext import seed_noise
from llama_bench.derive.words.scores import WIDTH

SAME = "the same text"


def told(tables) -> dict[str, Any] | None:
    """{"words", "texts", "cleaning", "steps"}; None where there is one text, and it as it came."""
    known = datatext.texts(tables)
    cleaning = _cleaning(tables, known)
    if len(known) < 2 and not cleaning:
        return None
    several = len(known) > 1
    return {
        "words": [datatext.COMMON, *_repetition(tables)] if several else [],
        "texts": _texts(tables, known),
        "cleaning": cleaning,
        "steps": _steps(tables),
    }


def _texts(tables, known: list[Text]) -> list[dict[str, Any]]:
    against = {text.name: gained for text, gained in datatext.compared(tables)}
    rows, own = [], datatext.own_of(known)
    for text in known:
        counts = text.counts
        rows.append(
            {
                "name": text.shown,
                "corpus": counts.get("corpus") or show.NOTHING,
                "steps": show.listed(step.replace("_", " ") for step in text.steps) or "none",
                "counts": [
                    show.exact(counts.get("documents")),
                    show.binary(counts.get("bytes")),
                    show.exact(counts.get("tokens")),
                    show.exact(text.runs["unique_tokens"].max()),
                    show.exact(_dropped(text, own)),
                ],
                "against": _against(text, own, against.get(text.name)),
            }
        )
    return rows


def _dropped(text: Text, own: Text | None) -> float | None:
    """Documents like held-out ones; of the study's own corpus they would be these themselves."""
    return None if own and text.of_corpus(own) else text.counts.get("overlapping_documents")


def _against(text: Text, own: Text | None, gained: list[Gain] | None) -> tuple[str, str]:
    if gained is not None:
        return _range(gained)
    if own is None or text.prepare == own.prepare or not text.same(own):
        return "", ""
    idle = [step.replace("_", " ") for step in sorted({*text.steps} ^ {*own.steps})]
    return SAME, f"{show.listed(idle)} changed nothing" if idle else ""


def _range(gained: list[Gain]) -> tuple[str, str]:
    if not gained:
        return "not compared", "no run read as much as one on the own text"
    differences = sorted(gain.difference for gain in gained)
    runs = f"over {show.plural(len(gained), 'size')} and budgets" if len(gained) > 1 else ""
    low, high = (_signed(difference) for difference in (differences[0], differences[-1]))
    return (low if low == high else f"{low} to {high}"), runs


def _cleaning(tables, known: list[Text]) -> list[dict[str, Any]]:
    """The steps of each prepared text once, under the first name it goes by."""
    named: dict[str, str] = {}
    for text in known:
        named.setdefault(text.prepare, text.shown)
    rows = []
    for row in tables["cleaning"].to_dict("records"):
        own = row["data"] if not show.absent(row["data"]) else datatext.OWN
        kinds = {"documents": show.exact, "bytes": show.binary}
        counts = ("documents_removed", "documents_changed", "bytes_removed", "documents", "bytes")
        cells = [kinds[name.split("_")[0]](row[name]) for name in counts]
        step = row["step"].replace("_", " ")
        rows.append({"name": named.get(row["run"], own), "step": step, "cells": cells})
    return rows


def _steps(tables) -> dict[str, Any]:
    """What one step did to the loss, a column a size, at the largest budget both texts have."""
    found = datatext.steps(tables)
    params = {gain.model: gain.params for *_, gained in found for gain in gained}
    models = sorted(params, key=lambda model: (params[model], model))
    rows = []
    for step, more, less, gained in found:
        largest = {gain.model: gain for gain in gained}  # in order of budget: the last one stays
        cells = [_gain(largest.get(model), more.same(less)) for model in models]
        step = step.replace("_", " ")
        rows.append({"step": step, "with": more.shown, "without": less.shown, "cells": cells})
    return {"models": models, "rows": rows, "error": error_words(tables)}


def _gain(gain: Gain | None, same: bool) -> tuple[str, str]:
    if gain is None:
        return show.NOTHING, ""
    if same:
        return SAME, "the step changed nothing"
    error = None if gain.error is None else WIDTH * gain.error
    return _signed(gain.difference, error), f"{show.short(gain.budget)} tokens"


def _signed(value: float, error: float | None = None) -> str:
    shown = show.plus_minus(value, error) if error else show.digits(value, 2)
    return f"{'+' if value > 0 else ''}{shown}"


def error_words(tables) -> str:
    """What the bars and brackets of a difference are."""
    width = f"±{WIDTH:g} standard errors"
    if seed_noise(tables["ladder"]):
        return f"{width}, from the spread between seeds"
    return (
        f"{width}, from the spread over held-out windows (too wide: both losses are of the same "
        "windows; the noise between seeds, which was not measured, is not in them)"
    )


def _repetition(tables) -> list[str]:
    """What the shortest text costs against the longest, both at equal training tokens."""
    runs = datatext.repetition(tables)
    if not len(runs):
        return []
    means = runs.groupby(["model", "unique_tokens"], as_index=False)["loss"].mean()
    ends = means.sort_values("unique_tokens").groupby("model")
    costs = sorted(100 * (ends["loss"].first() / ends["loss"].last() - 1))
    between = f"{show.digits(costs[0], 2)} %"
    if len(costs) > 1:
        between = f"{show.interval(costs[0], costs[-1])} %, by size,"
    few, many = (show.short(of(means["unique_tokens"])) for of in (min, max))
    return [
        f"With {few} unique tokens, read {epochs(runs)} times, the loss is {between} above that "
        f"with {many}, at equal training tokens."
    ]


def epochs(runs) -> str:
    """How often the shortest text was read."""
    return show.digits((runs["tokens"] / runs["unique_tokens"]).max(), 2)
