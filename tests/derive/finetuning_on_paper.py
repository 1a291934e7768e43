"""Fine-tunings on paper: two tasks, every number a plain function of size and labelled data."""

from __future__ import annotations

import csv
import math

import numpy as np
import pyarrow
import results_on_paper as results
from pyarrow import parquet
from study_on_paper import VOCAB, Paper, shape_of_size

BUDGET = 800_000
FRACTIONS = (1 / 16, 1 / 4, 1.0)
LABELS = (" asyncio", " email", " json", " xml")
ITEMS = 200
COUNTS = {"train": 800, "validation": 150, "test": ITEMS}
# of the transfer law: with it a fine-tuned model stands on the curve from zero at D_F + D_T
LAW = {"k": 0.02, "alpha": 0.4, "beta": 0.5}


def zero_loss(size: float, examples: float) -> float:
    return 4 * size**-0.04 * examples**-0.15


def tuned_loss(size: float, examples: float) -> float:
    moved = LAW["k"] * examples ** LAW["alpha"] * size ** LAW["beta"]
    return zero_loss(size, examples + moved)


def accuracy(size: float, fraction: float, zero=False) -> float:
    """After fine-tuning: a quarter by chance, more with data, more with size where pre-trained."""
    reached = 0.25 + 0.15 * (1 + math.log(fraction) / math.log(64))
    return reached if zero else reached + 0.1 * math.log10(size / 20_000)


class Tunings:
    """Fine-tunings on top of a study on paper; `part` tells labels apart, `docstring` writes."""

    def __init__(self, paper: Paper):
        self.paper = paper

    def whole(self, name="part", methods=("full",), zero=True, fractions=FRACTIONS, **how):
        self.examples(name)
        for label in self.paper.sizes:
            self.before(name, label)
            for fraction in fractions:
                for method in methods:
                    self.tuned(name, label, fraction, method, **how)
                if zero:
                    self.tuned(name, label, fraction, zero=True)
        return self

    def examples(self, name, **changed):
        choices = list(LABELS) if name == "part" else None
        result = {
            "task": f"{name}_test",
            "choices": choices,
            "examples": COUNTS,
            "documents": {part: count // 4 for part, count in COUNTS.items()},
            "answer_bytes": {part: 6 * count for part, count in COUNTS.items()},
            "left_out": {"a repeated example": 7, "an empty prompt or answer": 0},
            "label_counts": choices
            and {part: dict.fromkeys(choices, n // 4) for part, n in COUNTS.items()},
            "metric": "acc" if choices else "exact_match",
            "chance": 0.25 if choices else 0.0,
            "higher_is_better": True,
            "description": "which part of the library a text is from",
        }
        spec = {"task": f"{name}_test", "data": results.DATA, "source": name, "items": 1200}
        self.paper.add("examples", f"{name}-ee", {"finetune": name}, result | changed, spec)

    def before(self, name, label):
        size = shape_of_size(self.paper.sizes[label]).size
        named = {"suite": name, "before": True}
        self._evaluation(name, label, named, 0.2 + 0.02 * math.log10(size / 20_000))

    def tuned(self, name, label, fraction=1.0, method="full", zero=False, seed=0, gain=0.0, **said):
        """One fine-tuning and the evaluation of it; `gain` is added to its accuracy."""
        size = shape_of_size(self.paper.sizes[label]).size
        named = {"finetune": name, "method": method, "tuning_seed": seed}
        named |= {"from_zero": True} if zero else {}
        named |= {"fraction": fraction} if fraction < 1 else {}
        id = "-".join([label, name, f"{fraction:g}", method, *(["zero"] * zero), f"s{seed}"])
        result = self._result(name, label, fraction, method, zero)
        base = None if zero else {"verb": "train", "run": f"{label}-{BUDGET}-s0"}
        spec = {"base": base, "examples": f"{name}-ee", "method": method, "batch": 8, "steps": 200}
        spec |= {"rank": 8, "alpha": 16.0} if method == "lora" else {}
        labels = {"model": label, "budget": BUDGET, "seed": 0} | named
        folder = self.paper.add("finetune", id, labels, result, spec, **said)
        self._curve(folder)
        if said.get("status", "ok") == "ok":
            right = accuracy(size, fraction, zero) + gain - 0.03 * (method == "lora")
            self._evaluation(name, label, named | {"suite": name}, right, id)

    def _result(self, name, label, fraction, method, zero) -> dict:
        shape = shape_of_size(self.paper.sizes[label])
        examples = math.ceil(fraction * COUNTS["train"])
        loss = (zero_loss if zero else tuned_loss)(shape.size, examples)
        loss += 0.05 * (method == "lora")
        before = 2.0 + 40 / shape.size**0.33
        rise = 0.0 if method == "lora" else 0.3
        kept = {"loss": before, "bits_per_byte": before / 2.4, "tokens": 40_960}
        after = {**kept, "loss": before + rise, "bits_per_byte": (before + rise) / 2.4}
        classes = name == "part"
        frozen = dict.fromkeys(("accuracy", "macro_precision", "macro_recall", "macro_f1"), 0.35)
        majority = {
            "label": LABELS[0] if classes else "None",
            "accuracy": 0.25 if classes else 0.01,
        }
        return {
            "parameters": shape.parameters(VOCAB),
            "trained_parameters": shape.size // 50 if method == "lora" else shape.size,
            "origin": None if zero else {"verb": "train", "run": f"{label}-{BUDGET}-s0"},
            "ancestors": [],
            "task": f"{name}_test",
            "fraction": fraction,
            "method": method,
            "examples": COUNTS | {"train": examples},
            "left_out": {"train": {"too long for the context": 3}},
            "answer_tokens": {part: 3 * count for part, count in COUNTS.items()},
            "steps": 160,
            "best_step": 100,
            "epochs": 160 * 8 / examples,
            "stopped_early": True,
            "learning_rate": 0.001,
            "flops": 6.0 * shape.size * 160 * 8 * 100,
            "validation_loss": loss,
            "test_loss": loss,
            "test_loss_standard_error": 0.02,
            "before": {"validation_loss": 3.0, "test_loss": 3.1},
            "forgetting": None if zero else {"before": kept, "after": after},
            "frozen": {**frozen, "items": ITEMS} if classes else None,
            "majority": majority | ({"macro_f1": 0.1} if classes else {}),
            "tokens_per_second": 1e4,
            "peak_bytes": 10**8,
            "threads": 1,
            "device": "cpu",
        }

    def _curve(self, folder):
        with open(folder / "curve.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["step", "train_loss", "validation_loss", "learning_rate"])
            rows.writerows(
                [step, 3 / step, "" if step % 20 else 4 / step, 0.001] for step in (10, 20)
            )

    def fused(self, name, label, run, right):
        """The evaluation of a fusion of fine-tunings on the test of one of them."""
        named = {"suite": name, "fuse": "tuned", "method": "uniform"}
        self._evaluation(name, label, named, right, run, "fuse")

    def _evaluation(self, name, label, named, right, run=None, made_by="finetune"):
        """The first of the items in one order for all models are right, so that pairs are tight."""
        shape, task = shape_of_size(self.paper.sizes[label]), f"{name}_test"
        order = np.random.default_rng(5).permutation(ITEMS)
        made = (_choice if name == "part" else _written)(task, order < round(right * ITEMS))
        result = results.evaluate(label, shape, BUDGET, 3.0) | made["result"]
        labels = {"model": label, "budget": BUDGET, "seed": 0} | named
        id = "-".join([label, name, "before"]) if run is None else run
        id += f"-{name}" if made_by == "fuse" else ""
        spec = {made_by: run} if run else {"train": f"{label}-{BUDGET}-s0"}
        folder = self.paper.add("evaluate", f"{id}-eval", labels, result, spec)
        parquet.write_table(pyarrow.Table.from_pylist(made["rows"]), folder / "items.parquet")


def _choice(task, right) -> dict:
    """Wrong answers are the label after the right one."""
    items = []
    for number, good in enumerate(right):
        gold = number % 4
        likelihoods = [-3.0] * 4
        likelihoods[gold if good else (gold + 1) % 4] = -1.0
        items.append(results.choice(number, likelihoods, gold, LABELS, task))
    scores = results.scores_of(items)
    scores.append(scores[0] | {"metric": "macro_f1", "value": scores[0]["value"] - 0.01})
    result = {"scores": scores, "answers": results.answers_of(items), "samples": []}
    return {"result": result, "rows": [row for item in items for row in item["rows"]]}


def _written(task, right) -> dict:
    rows = [
        {
            **{"task": task, "filter": "none", "doc_id": n, "doc_hash": f"h{n}", "choice": 0},
            **{"log_likelihood": None, "bytes": None, "gold": None},
            "statistics": [{"metric": "exact_match", "sums": [float(good), 1.0]}],
        }
        for n, good in enumerate(right)
    ]
    mean = float(np.mean(right))
    about = {"task": task, "filter": "none", "version": "1", "shots": 0, "items": len(rows)}
    about |= {"higher_is_better": True, "chance": 0.0}
    error = math.sqrt(mean * (1 - mean) / (len(rows) - 1))
    scores = [
        about | {"metric": "exact_match", "value": mean, "standard_error": error},
        about | {"metric": "chrf", "value": 100 * mean + 5, "standard_error": 2.0},
    ]
    return {"result": {"scores": scores, "answers": [], "samples": []}, "rows": rows}
