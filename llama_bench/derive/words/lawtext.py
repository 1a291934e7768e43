"""A fitted law in words and numbers: what it says, how sure it is, and when it says nothing."""

from __future__ import annotations

import re
from typing import Any

from llama_bench.derive.words import allocationtext, show
from llama_bench.sections.fit import LAW_NEEDS

_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "lambda": "λ", "sigma": "σ"}
# what a parameter means, for the laws whose letters have one settled meaning
_MEANINGS = {
    "chinchilla": {
        "E": "what no model gets below, nats per token",
        "A": "scale of the term of size",
        "B": "scale of the term of tokens",
        "alpha": "how fast the loss falls with size",
        "beta": "how fast the loss falls with tokens",
        "a": "the best size at compute C grows as C to this power",
        "b": "the best number of tokens at compute C grows as C to this power",
    },
    "direct": {
        "k": "how steeply the score rises with compute",
        "C_mid": "FLOPs at which it is halfway between chance and 1",
    },
    "two_step": {
        "E": "what the loss of the tasks does not get below, bits per byte",
        "K": "scale of the term of compute",
        "g": "how fast that loss falls with compute",
        "k": "how steeply the score rises as that loss falls",
        "l_mid": "loss at which it is halfway between chance and 1",
    },
}
_COUNTS = {
    "params_all": "N with embeddings",
    "params_in_matrix_products": "N in matrix products, head included",
    "flops_six_n_d": "C as 6 N D",
}
_STATUSES = {
    "converged": "The search settled on a minimum and the runs determine every parameter.",
    "at-bounds": "This fit is no measurement: the best values lie at the edge of what the law "
    "allows ({why}). Its numbers are shown for the record; no curve is drawn from them.",
    "ill-posed": "This fit is ill-posed: {why}. Runs like these fit many values about equally "
    "well, so its numbers are not to be read one by one, and no curve is drawn from them. A wider "
    "range of sizes or budgets, or several seeds, would settle it.",
    "too-few-points": "The study has too few runs for this law ({why}); nothing was fitted.",
}


HELD_MEANS = (
    "“Held” is the share of studies drawn anew from the fitted law, with the noise that these runs "
    "show, whose own interval held the value they were drawn from. It takes the law for true; "
    "whether it is, the back-test says."
)


def drawable(fit: dict[str, Any]) -> bool:
    """Whether a figure may show it: it converged, and it is a law of the loss."""
    points = fit.get("points_used") or []
    return fit["status"] == "converged" and bool(points) and {"loss", "fitted"} <= set(points[0])


def of_scores(fit: dict[str, Any]) -> bool:
    """Whether it is a law of task scores rather than of the loss."""
    return fit["law"] in LAW_NEEDS and LAW_NEEDS[fit["law"]].scores


def told(fit: dict[str, Any]) -> dict[str, Any]:
    """What the report says of one fit; every value as shown text."""
    status, why = fit["status"], fit.get("why") or "the fit does not say why"
    words = _STATUSES.get(status, "It ended {status}: {why}.").format(status=status, why=why)
    level = (fit.get("settings") or {}).get("level")
    meanings = _MEANINGS.get(fit["law"], {})
    values = {**(fit.get("parameters") or {}), **(fit.get("derived") or {})}
    return {
        "law": fit["law"],
        "formula": formula(fit.get("formula") or fit["law"]),
        "paper": fit.get("paper"),
        "status": status,
        "words": [words, *_in_words(fit)],
        "level": show.percent(level) if level else "",
        "rows": [_row(name, entry, meanings) for name, entry in values.items()],
        "held_means": HELD_MEANS if status == "converged" else "",
        "tested": _tested(fit),
        "allocation": allocationtext.told(fit),
        "counted_names": [_GREEK.get(name, name) for name in _exponents(fit)],
        "counting": _counting(fit),
        "used": _used(fit),
    }


def none(ladder, config: dict[str, Any]) -> str:
    """Why a study without a fit has none; nothing of a study without trainings."""
    if not len(ladder):
        return ""
    if (config.get("fit") or {}).get("laws") == []:
        return "No law: because the configuration asks for none (fit.laws is empty)."
    have = (len(ladder), ladder["params"].nunique(), ladder["token_budget"].nunique())
    needs = [f"{law} {_counts(LAW_NEEDS[law][:3])}" for law in ("frontier", "chinchilla")]
    return (
        f"No law: because none could be fitted to the {_counts(have)} that have a loss. "
        f"The fewest it takes: for {show.listed(needs)}."
    )


def _counts(counts) -> str:
    runs, sizes, budgets = counts
    return (
        f"{show.plural(runs, 'run')} of {show.plural(sizes, 'size')} "
        f"at {show.plural(budgets, 'budget')}"
    )


def formula(text: str):
    """L = E + A / N^alpha as HTML: Greek letters, powers raised; the text itself escaped."""
    from markupsafe import Markup, escape

    shown = str(escape(text))
    for word, letter in _GREEK.items():
        shown = re.sub(rf"(?<![A-Za-z]){word}(?![a-z])", letter, shown)
    shown = re.sub(r"\^\(([^)]*)\)", r"<sup>\1</sup>", shown)
    shown = re.sub(r"\^([^\s()<;,]+)", r"<sup>\1</sup>", shown)
    return Markup(shown.replace(" - ", " − ").replace(" * ", " · "))


def _row(name: str, entry: dict[str, Any], meanings: dict[str, str]) -> dict[str, str]:
    open_ends = entry.get("unbounded") or []
    low = "−∞" if "low" in open_ends else show.digits(entry.get("low"))
    high = "∞" if "high" in open_ends else show.digits(entry.get("high"))
    # open on both sides it says no more than that nothing is known
    known = not show.absent(entry.get("value")) and set(open_ends) != {"low", "high"}
    between = f"{low} to {high}"
    if not open_ends and known and not show.absent(entry.get("low")):
        between = show.interval(entry["low"], entry["high"])
    return {
        "name": _GREEK.get(name, name),
        "value": "not determined"
        if show.absent(entry.get("value"))
        else show.digits(entry["value"]),
        "error": show.digits(entry.get("standard_error"), 2),
        "interval": between if known else show.NOTHING,
        "held": show.held(entry.get("covered")) if known else "",
        "meaning": meanings.get(name, "") + (" (at its bound)" if entry.get("at_bound") else ""),
    }


def _in_words(fit: dict[str, Any]) -> list[str]:
    """What a converged law of Hoffmann's form says, for people who do not read exponents."""
    if fit["status"] != "converged" or fit["law"] != "chinchilla":
        return []
    terms = []
    for what, name in (("parameters", "alpha"), ("tokens", "beta")):
        exponent = fit["parameters"][name]
        left = [1 - 10 ** -exponent[key] for key in ("value", "low", "high")]
        between = f"{show.interval(100 * left[1], 100 * left[2])} %"
        terms.append(
            f"ten times the {what} take away {show.percent(left[0])} "
            f"({_with_held(between, exponent)}) of the term of {what}"
        )
    floor = fit["parameters"]["E"]
    return [
        f"By this law {terms[0]}, {terms[1]}, and the loss never falls below "
        f"{show.digits(floor['value'])} nats per token "
        f"({_with_held(show.interval(floor['low'], floor['high']), floor)}). "
        "A and B are barely determined by any study of this size and trade off against the "
        "exponents; do not compare them between studies."
    ]


def _with_held(between: str, entry: dict[str, Any]) -> str:
    return ", ".join(filter(None, [between, show.held(entry.get("covered"))]))


def _used(fit: dict[str, Any]) -> str:
    used, left = len(fit.get("points_used") or []), fit.get("points_left_out") or []
    text = f"Fitted to {show.plural(used, 'run')}" if used else "Fitted to no run"
    if left:
        text += f"; {len(left)} left out ({left[0].get('why', 'no reason given')})"
    text += ". N counts the parameters without embeddings, D the training tokens, C the FLOPs."
    if not show.absent(fit.get("objective")):
        kind = "squares of the score" if of_scores(fit) else "robust losses on the log scale"
        text += f" Sum of {kind}: {show.digits(fit['objective'])}."
    return text


def _tested(fit: dict[str, Any]) -> list[str]:
    """What the back-test showed: forecasts of the runs with the most compute from the others."""
    test = fit.get("back_test")
    if fit["status"] != "converged" or not test:
        return []
    if not test.get("rows_hidden") or show.absent(test.get("mean_error_percent")):
        return [
            "A back-test, which hides the runs with the most compute and forecasts them from the "
            "others, was not possible: the rest does not determine the law."
        ]
    text = (
        f"Back-test: {show.plural(test['rows_hidden'], 'run')} with more compute than those "
        f"fitted, hidden and then forecast, came out {show.digits(test['mean_error_percent'], 2)}"
        " % off on average"
    )
    held = [
        f"{show.percent(entry['covered'])} lay in the {show.percent(entry['level'])} interval"
        for entry in test.get("levels", [])
        if not show.absent(entry.get("covered"))
    ]
    return [text + (f"; {show.listed(held)}." if held else ".")]


def _exponents(fit: dict[str, Any]) -> list[str]:
    """What can be compared between ways of counting: no scale, which changes with the unit."""
    scales = {"A", "B", "E"}
    names = [*(fit.get("parameters") or {}), *(fit.get("derived") or {})]
    return [name for name in names if name not in scales]


def _counting(fit: dict[str, Any]) -> list[dict[str, Any]]:
    """The study's own count first, then each other one that moves something: values and shifts."""
    names = _exponents(fit)
    rows = [_counted(other, names) for other in fit.get("counting") or [] if _moves(other)]
    if not rows or fit["status"] != "converged":
        return []
    values = {**fit["parameters"], **(fit.get("derived") or {})}
    own = [show.digits(values[name]["value"]) for name in names]
    return [{"counted": "as above", "status": fit["status"], "cells": own}, *rows]


def _moves(other: dict[str, Any]) -> bool:
    shifts = other["shifts"].values()
    return other["status"] != "converged" or any(abs(shift or 0) > 1e-6 for shift in shifts)


def _counted(other: dict[str, Any], names: list[str]) -> dict[str, Any]:
    cells = []
    for name in names:
        value, shift = other["values"].get(name), other["shifts"].get(name)
        sign = "" if show.absent(shift) else "+" if shift >= 0 else "−"
        moved = f" ({sign}{show.digits(abs(shift), 2)})" if sign else ""
        cells.append(f"{show.digits(value)}{moved}")
    counted = _COUNTS.get(other["column"], f"{other['column']} for {other['instead_of']}")
    return {"counted": counted, "status": other["status"], "cells": cells}
