"""Quality against cost as a table: every score and the loss against all that a token costs.

The figures show the ones that compare most models; here is each, with its Pareto front by the same
function (words/tradeoff.py). What was not measured has no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llama_bench.derive.tables import study_tables
from llama_bench.derive.tables.study_tables import Row
from llama_bench.derive.words import show, tradeoff

COSTS = ("seconds_per_token", "peak_bytes", "joules_per_token", "price_per_million_tokens")


def rows(found: dict[str, list[dict[str, Any]]]) -> Iterator[Row]:
    """Rows of `tradeoffs` from those of the tables that stand already."""
    if not found["cells"]:
        return
    tables = study_tables.own_ladder(study_tables.frames(found))
    costs = tradeoff.costs(tables).rename(columns={"seconds": "seconds_per_token"})
    for quality in tradeoff.qualities(tables):
        about = quality.about | {"higher_is_better": not quality.lower_is_better}
        for cost in COSTS:
            points = tradeoff.points(quality, costs, cost).rename(
                columns={"error": "standard_error"}
            )
            for point in points.assign(cost=cost, paid=points[cost]).to_dict("records"):
                values = study_tables.picked("tradeoffs", point) | about
                values = {name: None if show.absent(v) else v for name, v in values.items()}
                yield "tradeoffs", study_tables.row("tradeoffs", **values)
