"""A finished study written from a known law, as records: what tables and reports are held against.

Every number is a plain function of size and budget, so that a table must return exactly it and a
headline must find the slope that was put in.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from llama_bench.records import Record
from llama_bench.shape import Shape, shape_of_size

SIZES = {"50k": 50_000, "120k": 120_000, "300k": 300_000, "700k": 700_000, "1.6M": 1_600_000}
BUDGETS = (200_000, 400_000, 800_000)
PROMPTS = ("import ", "def main(")
VOCAB = 2048
MACHINE = {
    "host": "paper",
    "system": "Linux-6.1-x86_64",
    "processor": "Paper CPU @ 2 GHz",
    "cores": 2,
    "memory_bytes": 8 * 2**30,
}
CONFIG = {
    "study": "paper",
    "models": {"train": [{"size": size} for size in SIZES]},
    "train": {"budgets": list(BUDGETS)},
}


def law(params: float, tokens: float) -> float:
    """Nats per token: a floor and one power law each of size and tokens."""
    return 1.8 + 60 / params**0.33 + 200 / tokens**0.37


class Paper:
    """Collects runs below `root`; `spec()` is what `collect` is called with."""

    def __init__(self, root: Path, noise: float = 0.0, sizes=SIZES, budgets=BUDGETS, seeds=(0,)):
        self.root, self.noise, self.runs, self.clock = root, noise, [], 1.7e9
        self.sizes, self.budgets, self.seeds, self.law = sizes, budgets, seeds, law

    def whole(self) -> Paper:
        self.data()
        self.tasks()
        for label, size in self.sizes.items():
            shape = shape_of_size(size)
            self.probe(label, shape)
            for budget in self.budgets:
                for seed in self.seeds:
                    self.train(label, shape, budget, seed)
                    self.evaluate(label, shape, budget, seed)
        return self

    def ladder(self) -> Paper:
        """Trainings alone."""
        for label, size in self.sizes.items():
            for budget in self.budgets:
                for seed in self.seeds:
                    self.train(label, shape_of_size(size), budget, seed)
        return self

    def spec(self) -> str:
        return json.dumps({"study": "paper", "runs": self.runs, "config": CONFIG})

    def add(
        self,
        verb,
        id,
        labels,
        result,
        spec,
        *,
        status="ok",
        reason=None,
        total=10.0,
        threads=1,
        record=True,
    ):
        """One run; its record.json unless `record` is False. Returns its folder."""
        folder = self.root / "runs" / verb / id
        self.runs.append(
            {"id": id, "verb": verb, "path": str(folder / "record.json"), "labels": labels}
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").write_text("a log\n")
        if record:
            provenance = {
                "python": "3.11.9",
                "packages": {"torch": "2.13.0", "lm-eval": "0.4.13"},
                "machine": MACHINE,
                "threads": threads,
                "began": self.clock,
                "git": {"commit": "0123abc" * 5, "changed": False},
                "command": [verb],
            }
            self.clock += total
            Record(
                id=id,
                verb=verb,
                status=status,
                reason=reason,
                spec=spec,
                seconds={"startup": 1.5, "total": total},
                provenance=provenance,
                result=result,
            ).write(folder / "record.json")
        return folder

    def data(self):
        parts = ("train", "validation", "test")
        self.add(
            "prepare",
            "python-stdlib-v2048-aa",
            {},
            {
                "documents": dict(zip(parts, (1400, 80, 81), strict=True)),
                "bytes": dict(zip(parts, (28_000_000, 1_500_000, 1_600_000), strict=True)),
                "tokens": {"train": 8_000_000, "validation": 430_000},
                "near_duplicate_documents": 12,
                "unreadable_documents": 3,
                "corpus_sha256": "ab" * 32,
                "vocab_size": VOCAB,
                "token_width": 2,
                "bytes_per_token": 3.5,
            },
            {"corpus": {"source": "python-stdlib", "version": "3.11.9"}},
        )

    def tasks(self):
        about = {"items": 120, "higher_is_better": True}
        self.add(
            "tasks",
            "held-out-120-bb",
            {},
            {
                "tasks": {
                    "heldout_next_line": about
                    | {
                        "metric": "acc",
                        "chance": 0.25,
                        "description": "the true next line against three others",
                    },
                    "heldout_bits_per_byte": {
                        "items": 60,
                        "metric": "bits_per_byte",
                        "chance": 8.0,
                        "higher_is_better": False,
                        "description": "unseen files",
                    },
                },
                "left_out": {"heldout_identifier": "the corpus has no identifiers"},
            },
            {"data": "python-stdlib-v2048-aa"},
        )

    def train(self, label, shape: Shape, budget, seed=0, **said):
        loss = self.law(shape.size, budget) * (1 + self._wiggle(shape.size, budget, seed))
        flops = shape.flops_per_token(VOCAB, 256) * budget
        result = {
            "parameters": shape.parameters(VOCAB),
            "tokens": budget,
            "steps": budget // 1024,
            "unique_tokens": budget,
            "flops": {"exact": flops, "six_n_d": 6 * shape.size * budget},
            "loss": loss,
            "bits_per_byte": loss / 3.5 / 0.6931,
            "train_loss": loss - 0.05,
            "tokens_per_second": 2e9 / shape.size,
            "trained_tokens": budget,
            "continued_from": None,
            "peak_bytes": 3 * 10**8 + 16 * shape.size,
            "threads": 1,
            "device": "cpu",
        }
        spec = {
            "model": shape.model_dump(),
            "data": "python-stdlib-v2048-aa",
            "tokens": budget,
            "context": 256,
            "batch": 4,
            "learning_rate": 0.003,
            "warmup_tokens": 20_000,
            "decay_share": 0.2,
            "decay": "sqrt",
            "weight_decay": 0.1,
            "betas": [0.9, 0.95],
            "clip": 1.0,
            "seed": seed,
            "precision": "float32",
        }
        labels = {"model": label, "seed": seed, "budget": budget}
        if said.get("status", "ok") != "ok":
            result = {}
        folder = self.add("train", f"{label}-{budget}-s{seed}", labels, result, spec, **said)
        with open(folder / "curve.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["tokens", "train_loss", "validation_loss", "learning_rate"])
            for part in range(1, 101):
                tokens = budget * part // 100
                held_out = f"{loss:.6f}" if part == 100 else ""
                rows.writerow([tokens, law(shape.size, tokens) + 0.05, held_out, 0.003])
        return folder

    def evaluate(self, label, shape, budget=None, seed=None, pretrained=None, **said):
        loss = law(shape.size, budget or 4e6)
        accuracy = 0.25 + 0.5 * max(0.0, 5.0 - loss) / 3
        row = {"filter": "none", "version": "1", "shots": 0}
        result = {
            "parameters": shape.parameters(VOCAB),
            "scores": [
                row
                | {
                    "task": "heldout_next_line",
                    "metric": "acc",
                    "value": accuracy,
                    "standard_error": 0.04,
                    "chance": 0.25,
                    "higher_is_better": True,
                    "items": 120,
                },
                row
                | {
                    "task": "heldout_bits_per_byte",
                    "metric": "bits_per_byte",
                    "value": loss / 2.4,
                    "standard_error": 0.03,
                    "chance": 8.0,
                    "higher_is_better": False,
                    "items": 60,
                },
            ],
            "failed": [],
            "samples": [
                {
                    "prompt": prompt,
                    "text": f"<b>{label}</b> & {prompt}x = {budget or 'more'}",
                    "decoding": "greedy",
                    "seed": 0,
                }
                for prompt in PROMPTS
            ],
            "model": {"path": "somewhere", "dtype": "float32", "context": 256},
        }
        trained = {"budget": budget, "seed": seed} if budget else {}
        id = f"{label}-{budget}-s{seed}-eval" if budget else f"{label}-eval"
        spec = {"pretrained": pretrained} if pretrained else {"train": f"{label}-{budget}-s{seed}"}
        labels = {"model": label, "suite": "heldout"} | trained
        result = result if said.get("status", "ok") == "ok" else {}
        return self.add("evaluate", id, labels, result, spec, **said)

    def probe(self, label, shape, pretrained=None):
        rate = {"prefill": 4e9, "decode": 2e8, "train": 1e9}
        cells = []
        for phase, speed in rate.items():
            for batch in (1, 4):
                for context in (64, 256):
                    tokens = batch * (16 if phase == "decode" else context)
                    best = tokens * shape.size**0.5 * 1e3 / speed / batch**0.5
                    cells.append(
                        {
                            "phase": phase,
                            "batch": batch,
                            "context": context,
                            "status": "ok",
                            "reason": None,
                            "tokens": tokens,
                            "warmup_repeats": 2,
                            "load": 0.1,
                            "seconds": [best * (1 + wiggle) for wiggle in (0.0, 0.02, 0.01, 0.05)],
                            "peak_bytes": 4 * shape.size + batch * context * 4000,
                        }
                    )
        spec = {"pretrained": pretrained} if pretrained else {"model": shape.model_dump()}
        return self.add(
            "probe",
            f"{label}-cpu",
            {"model": label},
            {
                "parameters": shape.parameters(VOCAB),
                "cells": cells,
                "device": {"kind": "cpu", "name": "Paper CPU", "memory_bytes": 2**33, "threads": 2},
                "baseline_bytes": 4 * 10**8,
                "weight_bytes": 4 * shape.parameters(VOCAB)["all"],
            },
            spec,
            threads=2,
        )

    def pretrained(self, label, shape):
        self.evaluate(label, shape, pretrained={"digest": "dd"})
        self.probe(label, shape, pretrained={"digest": "dd"})

    def _wiggle(self, *place) -> float:
        """The same for the same place, within +-noise, and without a pattern in size or budget."""
        return self.noise * ((hash(place) % 1009) / 504.5 - 1)
