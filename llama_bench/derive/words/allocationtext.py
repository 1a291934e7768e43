"""The best split of a compute budget by a law: how large a model, on how many tokens.

Only a fit that converged has one. It is the law's own claim, and seldom within what was measured;
so it stands with its interval, with how little the exact size matters, and beside the runs' range.
"""

from __future__ import annotations

from typing import Any

from llama_bench.derive.words import show

LAWS = ("chinchilla", "kaplan", "overtraining", "data_constrained")  # of size and tokens
_COLUMNS = ("params", "tokens", "tokens_per_param")


def told(fit: dict[str, Any]) -> dict[str, Any] | None:
    """{"words": sentences, "rows": one per budget of compute, "within": how much loss the flat
    range costs}; None where the law has no split."""
    if fit["law"] not in LAWS:
        return None
    entries = fit.get("allocation")
    if fit["status"] != "converged":
        why = f"No best split of compute between size and tokens: the fit ended {fit['status']}, "
        return {"words": [why + "and only one that converged determines a split."], "rows": []}
    if not entries:
        return None
    return {
        "words": _words(fit, entries),
        "rows": [_row(entry, entries) for entry in entries],
        "within": f"{show.digits(entries[0]['flat']['within_percent'], 1)} %",
    }


def _words(fit: dict[str, Any], entries: list[dict[str, Any]]) -> list[str]:
    first = entries[0]
    level = show.percent((fit.get("settings") or {}).get("level"))
    if show.absent(first["params"]["value"]):
        return [
            f"Over ten decades of size this law has no best one for {show.digits(first['flops'])} "
            "FLOPs: the loss goes on falling to one end."
        ]
    size, tokens, ratio = (first[name] for name in _COLUMNS)
    said = [
        f"A budget of compute can be spent on a larger model or on more tokens. For as much as the "
        f"dearest run had, {show.digits(first['flops'])} FLOPs, this law has its lowest loss, "
        f"{show.digits(first['loss'])}, with N* = {_count(size)} parameters ({_bracket(size)}) "
        f"trained on D* = {_count(tokens)} tokens ({_bracket(tokens)}): {_count(ratio)} tokens per "
        f"parameter ({_bracket(ratio)}). Brackets are {level} intervals; compute counts as 6 N D."
    ]
    said += _beyond(fit, size["value"], tokens["value"])
    flat = first.get("flat") or {}
    if not show.absent(flat.get("params_low")) and not show.absent(flat.get("params_high")):
        said.append(
            f"The exact size matters little: any from {show.short(flat['params_low'])} to "
            f"{show.short(flat['params_high'])} parameters costs less than "
            f"{show.digits(flat['within_percent'], 1)} % of loss."
        )
    return said


def _beyond(fit: dict[str, Any], size: float, tokens: float) -> list[str]:
    """Whether the split lies outside the runs that the law was fitted to."""
    outside = []
    for what, name, value in (("parameters", "params", size), ("tokens", "tokens", tokens)):
        seen = [point[name] for point in fit.get("points_used") or [] if name in point]
        if seen and not min(seen) <= value <= max(seen):
            span = f"{show.short(min(seen))} to {show.short(max(seen))}"
            outside.append(f"{show.short(value)} {what} where the runs had {span}")
    if not outside:
        return []
    return [f"That is an extrapolation: {show.listed(outside)}."]


def _row(entry: dict[str, Any], entries: list[dict[str, Any]]) -> dict[str, Any]:
    flat = entry.get("flat") or {}
    ends = [flat.get("params_low"), flat.get("params_high")]
    shown = [
        end if show.absent(value) else show.short(value)
        for end, value in zip(("the smallest", "the largest"), ends, strict=True)
    ]
    factor = entry["flops"] / entries[0]["flops"]
    return {
        "flops": show.digits(entry["flops"]),
        "factor": "as the dearest run" if factor == 1 else f"{factor:.3g} times that",
        "cells": [(_count(entry[name]), *_ends(entry[name])) for name in _COLUMNS],
        "flat": show.NOTHING if show.absent(entry["params"]["value"]) else " to ".join(shown),
        "loss": show.digits(entry["loss"]),
    }


def _count(entry: dict[str, Any]) -> str:
    return "not determined" if show.absent(entry["value"]) else show.short(entry["value"])


def _ends(entry: dict[str, Any]) -> tuple[str, str]:
    """The interval, and how often it holds."""
    return _between(entry), show.held(entry.get("covered"))


def _bracket(entry: dict[str, Any]) -> str:
    return ", ".join(filter(None, _ends(entry)))


def _between(entry: dict[str, Any]) -> str:
    open_ends = entry.get("unbounded") or []
    low = "0" if "low" in open_ends else show.short(entry["low"])
    high = "∞" if "high" in open_ends else show.short(entry["high"])
    return f"{low} to {high}"
