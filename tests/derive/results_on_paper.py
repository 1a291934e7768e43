"""Results as each verb writes them (docs/protocol.md), every number a plain function of size."""

from __future__ import annotations

import math
from collections import Counter

from llama_bench.shape import Shape

VOCAB = 2048
DATA = "python-stdlib-v2048-aa"
PROMPTS = ("import ", "def main(")
MACHINE = {
    "host": "paper",
    "system": "Linux-6.1-x86_64",
    "processor": "Paper CPU @ 2 GHz",
    "cores": 2,
    "memory_bytes": 8 * 2**30,
}
TRAIN_SPEC = {
    "data": DATA,
    "context": 256,
    "batch": 4,
    "learning_rate": 0.003,
    "warmup_tokens": 20_000,
    "decay_share": 0.2,
    "decay": "sqrt",
    "weight_decay": 0.1,
    "betas": [0.9, 0.95],
    "clip": 1.0,
    "precision": "float32",
}
_PARTS = ("train", "validation", "test")
PREPARE = {
    "documents": dict(zip(_PARTS, (1400, 80, 81), strict=True)),
    "bytes": dict(zip(_PARTS, (28_000_000, 1_500_000, 1_600_000), strict=True)),
    "tokens": {"train": 8_000_000, "validation": 430_000},
    "near_duplicate_documents": 12,
    "unreadable_documents": 3,
    "corpus_sha256": "ab" * 32,
    "vocab_size": VOCAB,
    "token_width": 2,
    "bytes_per_token": 3.5,
}
_CANDIDATE = {
    "within_percent": None,
    "mean_bias_percent": -0.1,
    "best_runs_error_percent": None,
    "rows_hidden": 5,
    "folds": [{"mean_error_percent": 0.5}, {"mean_error_percent": None}],
}
_COMPARED = [
    {**_CANDIDATE, "law": "kaplan", "score": 0.3, "mean_error_percent": 0.5, "chosen": True},
    {**_CANDIDATE, "law": "chinchilla", "score": None, "mean_error_percent": None, "chosen": False},
]
FORECAST = {
    "schema": 1,
    "runs_asked": ["a", "b", "c", "d", "e", "f", "g"],
    "runs_used": ["a", "b", "c", "d", "e", "f", "g"],
    "levels": [0.5, 0.8, 0.95],
    "law": "kaplan",
    "status": "converged",
    "why": "the smallest mean error on hidden larger runs",
    "choice": {"table": _COMPARED},
}
_NEXT_LINE = {"metric": "acc", "chance": 0.25, "higher_is_better": True, "items": 120}
_BITS = {"metric": "bits_per_byte", "chance": 8.0, "higher_is_better": False, "items": 60}
TASKS = {
    "tasks": {
        "heldout_next_line": {**_NEXT_LINE, "description": "the true next line of four"},
        "heldout_bits_per_byte": {**_BITS, "description": "unseen files"},
    },
    "left_out": {"heldout_identifier": "the corpus has no identifiers"},
}


_ASKED_OF_A_CELL = (
    *("phase", "batch", "context", "status", "reason", "tokens", "seconds"),
    *("round_repeats", "warmup_repeats", "warmup_variation", "load", "other_processes", "busy"),
    *("processor_seconds", "clock_hertz", "temperature_celsius", "power_watts", "joules"),
    *("sampling_seconds", "cudagraph_skips"),
    *("compile_seconds", "import_seconds", "load_seconds", "first_token_seconds", "peak_bytes"),
    *("reserved_bytes", "kv_bytes", "kv_formula_bytes", "training_bytes", "activation_bytes"),
)


def provenance(verb: str, threads: int, began: float) -> dict:
    return {
        "python": "3.11.9",
        "packages": {"torch": "2.13.0", "lm-eval": "0.4.13"},
        "machine": MACHINE,
        "threads": threads,
        "began": began,
        "git": {"commit": "0123abc" * 5, "changed": False},
        "command": [verb],
    }


def cleaning(steps) -> list[dict]:
    """What each step took: a tenth of the documents and of the bytes that were left."""
    documents, size = PREPARE["documents"]["train"], PREPARE["bytes"]["train"]
    rows = []
    for step in steps:
        removed = {"documents_removed": documents // 10, "bytes_removed": size // 10}
        documents, size = documents - documents // 10, size - size // 10
        left = {"documents_changed": 0, "documents": documents, "bytes": size}
        rows.append({"step": step, **removed, **left})
    return rows


def train(shape: Shape, budget: int, loss: float) -> dict:
    flops = shape.flops_per_token(VOCAB, 256) * budget
    return {
        "parameters": shape.parameters(VOCAB),
        "tokens": budget,
        "steps": budget // 1024,
        "unique_tokens": budget,
        "flops": {"exact": flops, "six_n_d": 6 * shape.size * budget},
        "loss": loss,
        "bits_per_byte": loss / 3.5 / math.log(2),
        "train_loss": loss - 0.05,
        "tokens_per_second": 2e9 / shape.size,
        "trained_tokens": budget,
        "continued_from": None,
        "peak_bytes": 3 * 10**8 + 16 * shape.size,
        "threads": 1,
        "device": "cpu",
    }


def evaluate(label: str, shape: Shape, budget: int | None, loss: float) -> dict:
    accuracy = 0.25 + 0.5 * max(0.0, 5.0 - loss) / 3
    about = {"filter": "none", "version": "1", "shots": 0}
    scores = [
        {"task": "heldout_next_line", **_NEXT_LINE, "value": accuracy, "standard_error": 0.04},
        {"task": "heldout_bits_per_byte", **_BITS, "value": loss / 2.4, "standard_error": 0.03},
    ]
    text = f"<b>{label}</b> & x = {budget or 'more'}"
    return {
        "parameters": shape.parameters(VOCAB),
        "scores": [{**about, **score} for score in scores],
        "failed": [],
        "samples": [
            {"prompt": prompt, "text": text, "decoding": "greedy", "seed": 0} for prompt in PROMPTS
        ],
        "model": {"path": "somewhere", "dtype": "float32", "context": 256},
    }


def limits(kind: str = "cpu") -> dict:
    """10^11 operations and 10^10 bytes a second; of a GPU the vendor says twice as much."""
    vendor = {"flops_per_second": 2e11, "bytes_per_second": 2e10, "source": "a datasheet"}
    timed = {"seconds": [0.0100, 0.0102], "warmup_repeats": 5, "warmup_variation": 0.01}
    return {
        "device": device(kind),
        "matrix_flops_per_second": 1e11,
        "copy_bytes_per_second": 1e10,
        "launch_seconds": 2e-6,
        "vendor": vendor if kind == "cuda" else None,
        **dict.fromkeys(("matrix", "copy", "launch"), timed),
    }


def device(kind: str = "cpu") -> dict:
    name = {"cpu": "Paper CPU", "cuda": "Paper GPU"}[kind]
    facts = {"kind": kind, "name": name, "memory_bytes": 2**33, "threads": 2, "driver": None}
    return facts | {"power_limit_watts": None, "clock_hertz": None, "memory_clock_hertz": None}


def probe(
    shape: Shape, kind: str = "cpu", precision="float32", faster=1.0, joules=None, load=False
) -> dict:
    """Time per token grows as the square root of the size; four repeats, the first the best.
    `joules` is what a token takes, where there is a counter."""
    width = 4 if precision == "float32" else 2
    places = [
        (phase, batch, context, speed * faster)
        for phase, speed in {"prefill": 4e6, "decode": 2e5, "train": 1e6}.items()
        for batch in (1, 4)
        for context in (64, 256)
    ]
    cells = [_cell(shape, *place, width, joules) for place in places]
    counts = shape.parameters(VOCAB)
    return {
        "parameters": counts,
        "cells": [*cells, *([_load()] if load else [])],
        "largest_batches": [],
        "device": device(kind),
        "engine": {"name": "transformers", "version": "5.17"},
        "weights": "random",
        "baseline_bytes": 4 * 10**8,
        "peak_source": "VmHWM",
        "energy_source": None if joules is None else "rapl",
        "energy_missing": "this machine shows no energy counter" if joules is None else None,
        "weight_bytes": width * counts["all"],
    }


def _cell(shape: Shape, phase, batch, context, speed, width, joules) -> dict:
    tokens = batch * (min(8, context // 8) if phase == "decode" else context)
    best = tokens * shape.size**0.5 / speed / batch**0.5 * context**0.1
    cache = batch * context * shape.kv_bytes_per_token(width)
    generated = phase != "train"
    return {
        **dict.fromkeys(_ASKED_OF_A_CELL),
        "phase": phase,
        "batch": batch,
        "context": context,
        "status": "ok",
        "tokens": tokens,
        "round_repeats": [1, 1, 1, 1],
        "warmup_repeats": 2,
        "load": 0.1,
        "busy": False,
        "seconds": [best * slower for slower in (1.0, 1.02, 1.01, 1.05)],
        "processor_seconds": [best * slower for slower in (1.0, 1.01, 1.0, 1.01)],
        "joules": None if joules is None else 4 * [joules * tokens],
        "peak_bytes": 4 * shape.size + batch * context * 4000,
        "kv_bytes": cache if generated else None,
        "kv_formula_bytes": cache if generated else None,
        "activation_bytes": batch * context * 1000,
    }


def _load() -> dict:
    """Two starts of seven seconds: four of imports, two of weights, one of the first token."""
    parts = {"import_seconds": 4.0, "load_seconds": 2.0, "first_token_seconds": 1.0}
    return {
        **dict.fromkeys(_ASKED_OF_A_CELL),
        **{name: [value, value] for name, value in parts.items()},
        **{"phase": "load", "batch": 1, "context": 64, "status": "ok", "tokens": 64},
        "seconds": [7.0, 7.0],
    }


def choice(number: int, likelihoods, gold: int, names=None, task="choose") -> dict:
    """One item of multiple choice as items.parquet has it; `names` are the choices' texts."""
    given = max(range(len(likelihoods)), key=likelihoods.__getitem__)
    about = {"task": task, "filter": "none", "doc_id": number, "doc_hash": f"hash-{number}"}
    right = float(given == gold)
    about["statistics"] = [{"metric": "acc", "sums": [right, 1.0]}]
    rows = [
        about | {"choice": place, "log_likelihood": value, "bytes": 4, "gold": place == gold}
        for place, value in enumerate(likelihoods)
    ]
    shares = [math.exp(value) for value in likelihoods]
    smooth = {
        "acc": right,
        "gold_probability": shares[gold] / sum(shares),
        "gold_bits_per_byte": -likelihoods[gold] / 4 / math.log(2),
    }
    return {"rows": rows, "gold": gold, "given": given, "names": names, "scores": smooth}


def scores_of(items: list[dict]) -> list[dict]:
    """Means over items, with their standard errors."""
    rows, count = [], len(items)
    chance = 1 / len(items[0]["rows"])
    for metric in items[0]["scores"]:
        values = [item["scores"][metric] for item in items]
        mean = math.fsum(values) / count
        spread = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
        about = {"task": items[0]["rows"][0]["task"], "filter": "none", "version": "1", "shots": 0}
        about |= {"metric": metric, "value": mean, "standard_error": math.sqrt(spread / count)}
        about |= {"chance": None if metric == "gold_bits_per_byte" else chance, "items": count}
        rows.append(about | {"higher_is_better": metric != "gold_bits_per_byte"})
    return rows


def answers_of(items: list[dict]) -> list[dict]:
    counted = Counter((item["gold"], item["given"]) for item in items)
    names, task = items[0]["names"], items[0]["rows"][0]["task"]
    return [
        {"task": task, "gold": gold, "given": given, "items": count}
        | {"gold_text": names[gold] if names else None}
        | {"given_text": names[given] if names else None}
        for (gold, given), count in sorted(counted.items())
    ]
