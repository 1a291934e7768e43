"""The section on fusion: its sentences and tables as shown text."""

from __future__ import annotations

from typing import Any

from llama_bench.derive.words import fusiongrowth, fusions, fusionscores, fusiontext, show, ways
from llama_bench.derive.words.fusions import CONTROL, Fused, Outcome

Cell = tuple[str, str]  # a number, and what stands small under it
_NONE = (show.NOTHING, "")
_SAME = ["device", "engine", "precision", "phase", "batch", "context"]


def told(tables) -> dict[str, Any] | None:
    """{"words", "groups", "laws", "law_means", "members", "cost", "scores"}; None where no fusion
    has a loss."""
    found = fusions.found(tables)
    if not found:
        return None
    return {
        "words": fusiontext.words(found),
        "groups": [_group(name, group) for name, group in fusions.by_name(found).items()],
        "laws": fusiongrowth.law_rows(found),
        "law_means": fusiongrowth.LAW_MEANS,
        "members": fusiongrowth.member_rows(found),
        "cost": _cost(tables, found),
        "scores": fusionscores.told(tables),
    }


def _group(name: str, group: list[Fused]) -> dict[str, Any]:
    """One fusion of the configuration: a row a size, a column a way of fusing."""
    ways_of = list(dict.fromkeys(outcome.name for each in group for outcome in each.outcomes))
    ways_of.sort(key=lambda way: way == CONTROL)
    rows = [
        {"name": each.shown, "cells": [_best(each), *(_outcome(each.of(way)) for way in ways_of)]}
        for each in group
    ]
    words = fusiontext.of_group(group)
    return {"name": name, "words": words, "columns": ["best member", *ways_of], "rows": rows}


def _best(each: Fused) -> Cell:
    return show.digits(each.best_loss, 4), f"worst {show.digits(each.worst_loss, 4)}"


def _outcome(outcome: Outcome | None) -> Cell:
    if outcome is None:
        return _NONE
    return show.digits(outcome.loss, 4), fusiongrowth.signed(outcome.gain, outcome.error)


def _cost(tables, found: list[Fused]) -> list[dict[str, Any]]:
    """What the ensembles cost beside what they gain; each number also as a multiple of one
    member's."""
    rows = []
    for each in found:
        ensemble, average = each.ensemble, each.average
        if ensemble is None:
            continue
        one = None if average is None else average.row
        counts = [
            _times(ensemble.row["parameters_all"], one, "parameters_all", show.short),
            _times(ensemble.row["parameters_in_matrix_products"], one, _MATRIX, _flops),
        ]
        gains = [_gain(outcome) for outcome in (average, ensemble, each.of(CONTROL))]
        about = {"fuse": each.fuse, "model": each.shown, "members": str(each.count)}
        cells = [*gains, *counts, *_probed(tables, each), _training(each)]
        rows.append(about | {"cells": cells})
    return rows


_MATRIX = "parameters_in_matrix_products"


def _flops(weights: float) -> str:
    """Of a token forward, attention left out: 2 per weight of a product."""
    return show.short(2 * weights)


def _gain(outcome: Outcome | None) -> Cell:
    return _NONE if outcome is None else (fusiongrowth.signed(outcome.gain, outcome.error), "")


def _times(value, one, column: str, shown) -> Cell:
    if show.absent(value):
        return _NONE
    return shown(value), "" if one is None else _multiple(value, one[column])


def _multiple(value, of) -> str:
    return "" if show.absent(of) or not of else f"× {show.digits(value / of, 2)}"


def _probed(tables, each: Fused) -> list[Cell]:
    """Decoding speed and peak memory of the members as one model, where probed."""
    found = []
    for table, column, shown in (
        ("cells", "tokens_per_second", show.digits),
        ("memory", "peak_bytes", show.binary),
    ):
        rows = tables[table].dropna(subset=[column])
        # one probe serves all fusions of the same shapes, whatever they are called: as many
        # members with as many parameters are the same
        same = rows["parameters_all"] == each.ensemble.row["parameters_all"]
        ensemble = ways.one_reader(rows[same & (rows["members"] == each.count)])
        single = rows[(rows["model"] == each.one_of) & rows["members"].isna()]
        both = ensemble.merge(single, on=_SAME, how="left", suffixes=("", "_one"))
        if not len(both):
            found.append(_NONE)
            continue
        value, one = both[[column, f"{column}_one"]].iloc[0]
        said = [_multiple(value, one), "busy" if table == "cells" and _disturbed(both) else ""]
        found.append((shown(value), ", ".join(filter(None, said))))
    return found


def _disturbed(both) -> bool:
    """Whether other programs ran beside the members' probe or the single one's."""
    return any(map(show.holds, both[["busy", "busy_one"]].iloc[0]))


def _training(each: Fused) -> Cell:
    """FLOPs of the members together, a trunk that several share counted once, and the control's."""
    runs = each.trained
    if len(runs) < each.count or runs["flops_exact"].isna().any():
        return _NONE
    flops = float(runs["flops_exact"].sum())
    for _, same in runs[runs["schedule"].isna()].groupby(["model", "seed", "tokens"]):
        flops -= float((same["flops_exact"] * (1 - same["decay_share"])).iloc[1:].sum())
    control = each.of(CONTROL)
    known = control is not None and control.row is not None
    note = f"control {show.digits(control.row['flops_exact'])}" if known else ""
    return show.digits(flops), note
