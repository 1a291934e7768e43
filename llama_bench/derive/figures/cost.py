"""What a size costs to run, in the order that a reader decides: what quality is had for what cost,
how fast, in how much memory. Everything else stands under details."""

from __future__ import annotations

from collections.abc import Iterator

from llama_bench.derive.figures import footprint, latency, probed, roofline, tradeoff
from llama_bench.derive.figures.drawing import Figure

SHOWN, DETAILS = "cost", "cost-details"


def draw(tables, fits) -> Iterator[Figure]:
    cells = probed.measured(tables)
    yield from tradeoff.main(tables, SHOWN)
    yield from roofline.speed(cells, "prefill", SHOWN)
    yield from roofline.speed(cells, "decode", SHOWN)
    yield from footprint.against_size(tables["memory"], SHOWN)
    yield from roofline.share(cells, "prefill", DETAILS)
    yield from roofline.share(cells, "decode", DETAILS)
    yield from roofline.speed(cells, "train", DETAILS)
    yield from latency.against_batch(cells, "prefill", DETAILS)
    yield from latency.against_batch(cells, "decode", DETAILS)
    yield from footprint.against_context(tables["memory"], DETAILS)
    yield from footprint.largest_batches(tables, DETAILS)
    yield from latency.energy(cells, DETAILS)
    yield from latency.cold_start(tables, DETAILS)
    yield from tradeoff.others(tables, DETAILS)
