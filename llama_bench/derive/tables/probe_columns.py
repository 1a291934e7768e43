"""The columns of the tables of limits and probes, and of what quality their costs buy."""

from __future__ import annotations

from llama_bench.derive.tables.column_groups import CELL, METRIC, PARAMETERS, RUN, WAY

# fmt: off
PROBING: dict[str, dict[str, str]] = {
    # one row per device and precision: the rates that its work is held against
    "limits": {
        "run": "text", "device": "text", "device_kind": "text", "threads": "count",
        "precision": "text", "matrix_flops_per_second": "real", "copy_bytes_per_second": "real",
        "launch_seconds": "real", "vendor_flops_per_second": "real",
        "vendor_bytes_per_second": "real", "vendor_source": "text", "memory_bytes": "count",
        "driver": "text", "clock_hertz": "real", "memory_clock_hertz": "real",
        "power_limit_watts": "real",
    },
    # one row per probed cell: what its repeats say together, and what that is of the limits
    "cells": {
        **RUN, **PARAMETERS, "device_kind": "text", "weights": "text", **WAY, **CELL,
        "threads": "count", "status": "text", "reason": "text", "busy": "flag", "load": "real",
        "other_processes": "count", "warmup_repeats": "count", "warmup_variation": "real",
        "repeats": "count", "tokens": "count", "median_seconds": "real",
        "median_low_seconds": "real", "median_high_seconds": "real", "rounds_differ": "flag",
        "p90_seconds": "real",
        "p99_seconds": "real", "median_processor_seconds": "real",
        "tokens_per_second": "real", "mean_tokens_per_second": "real",
        "tokens_per_second_deviation": "real", "sampling_seconds": "real",
        "compile_seconds": "real", "cudagraph_skips": "count",
        "flops": "real", "bytes_moved": "real",
        "roofline_seconds": "real", "limited_by": "text", "roofline_share": "real",
        "mfu": "real", "mbu": "real", "vendor_mfu": "real", "vendor_mbu": "real",
        "joules_per_token": "real", "energy_source": "text", "energy_missing": "text",
        "price_per_million_tokens": "real", "weight_bytes": "count",
    },
    # one row per probed cell and repeat
    "speeds": {
        **RUN, **PARAMETERS, **WAY, "threads": "count", **CELL, "repeat": "count",
        "tokens": "count", "seconds": "real", "tokens_per_second": "real", "busy": "flag",
        "clock_hertz": "real", "temperature_celsius": "real", "power_watts": "real",
        "joules": "real", "processor_seconds": "real",
        "import_seconds": "real", "load_seconds": "real",
        "first_token_seconds": "real",
    },
    # one row per probed cell
    "memory": {
        **RUN, **PARAMETERS, **WAY, **CELL, "status": "text", "reason": "text",
        "peak_bytes": "count", "reserved_bytes": "count", "weight_bytes": "count",
        "kv_bytes": "count", "kv_formula_bytes": "count", "activation_bytes": "count",
        "training_bytes": "count", "baseline_bytes": "count", "peak_source": "text",
    },
    # one row per model, phase and context: the largest batch that fits
    "largest_batches": {
        **RUN, **PARAMETERS, **WAY, "phase": "text", "context": "count", "batch": "count",
        "status": "text", "reason": "text", "limited_by": "text", "tries": "count",
    },
    # one row per quality (the held-out loss, the main metric of a task), cost, model and way of
    # probing: `cost` is seconds_per_token, peak_bytes, joules_per_token or
    # price_per_million_tokens of one reader's decoding, `paid` how much of it, `run` the probe;
    # `front`: nothing else of this quality and cost beats it
    "tradeoffs": {
        **RUN, "budget": "count", "parameters_without_embeddings": "count", **METRIC,
        "value": "real", "standard_error": "real", "higher_is_better": "flag", "device": "text",
        "engine": "text", "precision": "text", **CELL, "busy": "flag", "cost": "text",
        "paid": "real", "front": "flag",
    },
}
# fmt: on
