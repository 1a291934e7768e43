"""Training recipes by size: what config.yaml leaves open is settled here, once, and stands in the
spec as a number."""

from __future__ import annotations

from llama_bench.shape import Shape


def peak_rate(shape: Shape) -> float:
    """Peak learning rate of AdamW where config.yaml gives none: 0.0025 at width 64, falling with
    the square root of the width.

    Measured on this project's own ladder (docs/benchmarks.md), for its small batches and its 50
    thousand to 1.6 million parameters; larger models want a rate of their own in config.yaml.
    """
    return float(f"{0.0025 * (64 / shape.width) ** 0.5:.3g}")
