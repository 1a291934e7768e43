"""What pre-training is worth in labelled examples, in words and as tables."""

from __future__ import annotations

from typing import Any

from llama_bench.derive.laws.transfer import transfer
from llama_bench.derive.tables.transfer import BEYOND, NOTHING, USED
from llama_bench.derive.words import lawtext, show

_MEANINGS = {
    "k": "scale; it has no meaning of its own",
    "alpha": "how what was transferred grows with labelled data",
    "beta": "how it grows with size",
}


def told(tables, finetune: str) -> dict[str, Any] | None:
    """Of one fine-tuning; None where nothing was trained from zero to compare with."""
    points = of(tables["transfer"], finetune)
    if not len(points):
        return None
    fits = tables["transfer_laws"]
    fits = [rows for _, rows in fits[fits["finetune"] == finetune].groupby("method")]
    return {
        "words": [_worth(points), *_left_out(points)],
        "points": [_point(row) for row in points.to_dict("records")],
        "laws": [_law(rows) for rows in fits],
        "formula": lawtext.formula(transfer.formula),
        "paper": transfer.paper,
    }


def of(points, finetune: str):
    """The points of one fine-tuning, each model's at the largest budget that was fine-tuned."""
    points = points[points["finetune"] == finetune]
    most = points.groupby("model")["budget"].transform("max")
    return points[(points["budget"] == most) | most.isna()]


def _worth(points) -> str:
    """The largest model on the fewest examples, where pre-training counts most."""
    known = points[points["state"].isin([USED, BEYOND, NOTHING])]
    if not len(known):
        return (
            "What pre-training is worth in labelled examples cannot be told: that takes training "
            "from zero on two amounts of them at least."
        )
    largest = known[known["params"] == known["params"].max()]
    row = largest.loc[largest["examples"].idxmin()]
    few, most = show.exact(row["examples"]), show.exact(row["most_examples"])
    begun = f"At {row['model']}, fine-tuned ({row['method']}) on {show.plural(few, 'example')},"
    if row["state"] == NOTHING:
        return f"{begun} pre-training is worth nothing: from zero is as good on as many."
    if row["state"] == BEYOND and not _bound(row):
        return f"{begun} pre-training is worth something: from zero, as many do not reach its loss."
    if row["state"] == BEYOND:
        return (
            f"{begun} pre-training is worth more than {_bound(row)} labelled examples at this "
            f"size: from zero, all {most} do not reach its loss."
        )
    return (
        f"{begun} pre-training is worth {show.exact(row['transferred'])} labelled examples at this "
        f"size: training from zero takes {show.exact(row['effective_examples'])} to reach its loss."
    )


def _bound(row) -> str:
    """What a point beyond the curve is worth at least; "" where that is nothing."""
    least = row["most_examples"] - row["examples"]
    return show.exact(least) if least >= 1 else ""


def _left_out(points) -> list[str]:
    beyond = int((points["state"] == BEYOND).sum())
    nothing = int((points["state"] == NOTHING).sum())
    said = []
    if beyond:
        said.append(
            f"{beyond} of {show.plural(len(points), 'point')} lie beyond all that training from "
            "zero reached: there only a lower bound is known, and no law is fitted to them, which "
            "leaves it the points where less was transferred."
        )
    if nothing:
        said.append(f"At {show.plural(nothing, 'point')} nothing was transferred.")
    return said


def _point(row: dict[str, Any]) -> dict[str, Any]:
    worth = {
        USED: show.exact(row["transferred"]),
        BEYOND: f"more than {_bound(row) or 'nothing'}",
        NOTHING: "nothing",
    }
    return {
        "model": row["model"],
        "method": row["method"],
        "cells": [
            show.exact(row["examples"]),
            show.digits(row["loss"]),
            show.digits(row["from_zero_loss"]),
            worth.get(row["state"], show.NOTHING),
        ],
    }


def _law(rows) -> dict[str, Any]:
    first = rows.iloc[0]
    values = rows.dropna(subset=["value"]).set_index("parameter")
    amounts = {"points": "point", "sizes": "size", "fractions": "amount"}
    points, sizes, shares = (show.plural(int(first[n]), word) for n, word in amounts.items())
    converged = first["status"] == "converged" and len(values)
    return {
        "method": first["method"],
        "status": first["status"],
        "words": [_in_words(values)] if converged else [f"Not a measurement: {first['why']}."],
        "rows": [_parameter(name, row) for name, row in values.iterrows()],
        "level": show.percent(first["level"]) if len(values) else "",
        "used": f"{points} of {sizes} and {shares} of data.",
    }


def _in_words(values) -> str:
    size, data = (_factor(values.loc[name]) for name in ("beta", "alpha"))
    return (
        f"By this law what pre-training is worth is multiplied by {size} for ten times the "
        f"parameters, and by {data} for ten times the labelled examples."
    )


def _factor(row) -> str:
    value, low, high = (10 ** row[end] for end in ("value", "low", "high"))
    return f"{show.digits(value, 2)} ({show.interval(low, high)})"


def _parameter(name: str, row) -> dict[str, str]:
    return {
        "name": {"alpha": "α", "beta": "β"}.get(name, name),
        "value": show.digits(row["value"]),
        "error": show.digits(row["standard_error"], 2),
        "interval": show.interval(row["low"], row["high"]),
        "meaning": _MEANINGS[name],
    }
