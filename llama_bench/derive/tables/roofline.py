"""What a probed cell has to compute and to read, and how long that takes at the device's limits.

No cell is faster than its floating-point operations at the rate of a matrix product, nor than its
bytes at the memory's bandwidth: the roofline (Williams, Waterman and Patterson 2009, Communications
of the ACM 52, 4). The share of a rate that is reached is called MFU for operations (Chowdhery et
al. 2022, arXiv 2204.02311, appendix B) and MBU for bytes. Only what the model needs counts: no
operation on what a causal mask hides, no byte that is read twice. What lies in a cache can be read
faster than memory, so a small model's MBU may exceed 1.
"""

from __future__ import annotations

from typing import Any

from llama_bench.shape import Shape

_NUMBER_BYTES = {"float32": 4}  # of activations and cache; all other precisions multiply bfloat16
_GENERAL = 2


def work(cell: dict[str, Any], result: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """`flops` and `bytes_moved` of one repeat of a cell; null where they are not known.

    2 operations per weight of a product and token, times 3 with the way back; 4 x layers x width
    for each pair of tokens of which one attends to the other (`Shape.flops_per_token`). Prefill
    applies the head to the last position only. Every token attends to all before it: a model whose
    layers look back on a window alone computes less.
    """
    counts = result.get("parameters")
    if not counts or not cell.get("tokens"):  # none of what was not measured
        return {}
    phase, batch, context, tokens = (cell[key] for key in ("phase", "batch", "context", "tokens"))
    head = _table(counts)
    layers = counts["in_matrix_products"] - head
    attention = 4 * _attended_width(result, spec)
    if phase == "train":
        return {"flops": 3 * tokens * (2 * (layers + head) + attention * context / 2)}
    read = _weight_bytes_read(counts, head, result, spec)
    cached = cell.get("kv_formula_bytes")
    if phase == "prefill":
        flops = tokens * (2 * layers + attention * context / 2) + batch * 2 * head
        moved = _sum(read, cached)
    elif phase == "decode":
        steps = tokens / batch
        depth = context - (steps - 1) / 2  # the window ends with `context` tokens cached
        flops = tokens * (2 * (layers + head) + attention * depth)
        moved = _sum(read, None if cached is None else cached * depth / context)
        moved = None if moved is None else steps * moved
    else:
        return {}
    return {"flops": flops, "bytes_moved": moved}


def _table(counts: dict[str, int]) -> int:
    """Weights of the head. `all` has the embedding table once (tied to the head) or twice;
    `in_matrix_products` has the head and lacks but the norms."""
    tables = counts["all"] - counts["without_embeddings"]
    once = counts["in_matrix_products"] - counts["without_embeddings"]
    return tables // 2 if once > 0 and round(tables / once) >= 2 else tables


def _attended_width(result: dict[str, Any], spec: dict[str, Any]) -> int:
    """Layers x heads x head size, of all members where several models answer as one. What the
    record tells holds of a pretrained model too; one without it tells of a shape alone."""
    told = result.get("members") or ([result["shape"]] if result.get("shape") else [])
    if told:
        return sum(each["layers"] * each["heads"] * each["head_size"] for each in told)
    asked = spec.get("members") or ([spec["model"]] if spec.get("model") else [])
    shapes = [Shape.model_validate(each) for each in asked]
    return sum(shape.layers * shape.width for shape in shapes)


def _weight_bytes_read(counts, head: int, result, spec) -> float | None:
    """All weights as they are stored, but for an embedding table that is looked up and not
    multiplied; quantized models keep one beside their head."""
    number = _NUMBER_BYTES.get(spec.get("precision", "float32"), _GENERAL)
    quantized = str(spec.get("precision")).startswith("int")
    stored = result.get("weight_bytes")
    if stored is None:  # vllm does not tell
        if quantized:
            return None
        stored = counts["all"] * number
    apart = quantized or counts["all"] - counts["without_embeddings"] > head
    return stored - (head * number if apart else 0)


def _sum(*parts: float | None) -> float | None:
    return None if None in parts else sum(parts)


def held_against(
    cells: list[dict[str, Any]], limits: list[dict[str, Any]], price_per_hour: float | None
) -> None:
    """Fill in what the rows of `cells` reach of their device's limits, and what they cost."""
    for cell in cells:
        seconds = cell["median_seconds"]
        if not seconds:
            continue
        cell |= _shares(cell, _limits_of(cell, limits), seconds)
        if price_per_hour is not None and cell["phase"] != "load":
            cell["price_per_million_tokens"] = (
                price_per_hour / 3600 * seconds / cell["tokens"] * 1e6
            )


def _shares(cell: dict[str, Any], limits: dict[str, Any], seconds: float) -> dict[str, Any]:
    found = {}
    for prefix in ("", "vendor_"):
        rate = limits.get(f"{prefix or 'matrix_'}flops_per_second")
        bandwidth = limits.get(f"{prefix or 'copy_'}bytes_per_second")
        arithmetic, memory = (
            _quotient(cell["flops"], rate),
            _quotient(cell["bytes_moved"], bandwidth),
        )
        found |= {
            f"{prefix}mfu": _quotient(arithmetic, seconds),
            f"{prefix}mbu": _quotient(memory, seconds),
        }
        if (
            not prefix
            and arithmetic is not None
            and (memory is not None or cell["phase"] == "train")
        ):
            found["roofline_seconds"] = max(arithmetic, memory or 0.0)
            found["limited_by"] = "memory" if memory and memory > arithmetic else "arithmetic"
            found["roofline_share"] = found["roofline_seconds"] / seconds
    return found


def _quotient(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _limits_of(cell: dict[str, Any], limits: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the same device, in the precision that the cell multiplies in; of a CPU with as many
    threads. {} where they were not measured."""
    product = "float32" if cell["precision"] == "float32" else "bfloat16"
    for row in limits:
        same = (row["device"], row["precision"]) == (cell["device"], product)
        if same and (row["device_kind"] == "cuda" or row["threads"] == cell["threads"]):
            return row
    return {}
