"""A finished study written from a known law, as records: what tables and reports are held against.

Every number is a plain function of size and budget, so that a table must return exactly it and a
headline must find the slope that was put in.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pyarrow
import results_on_paper as results
from pyarrow import parquet
from results_on_paper import DATA, VOCAB

from llama_bench.records import Record
from llama_bench.shape import Shape, shape_of_size

__all__ = ["BUDGETS", "CONFIG", "SIZES", "VOCAB", "Paper", "law", "shape_of_size"]

SIZES = {"50k": 50_000, "120k": 120_000, "300k": 300_000, "700k": 700_000, "1.6M": 1_600_000}
BUDGETS = (200_000, 400_000, 800_000)
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
        self.forecasts: list[str] = []
        self.sizes, self.budgets, self.seeds, self.law = sizes, budgets, seeds, law

    def whole(self) -> Paper:
        self.add("prepare", DATA, {}, results.PREPARE, {"corpus": {"source": "python-stdlib"}})
        self.add("tasks", "held-out-120-bb", {}, results.TASKS, {"data": DATA})
        self.limits()
        for label, size in self.sizes.items():
            self.probe(label, shape_of_size(size))
        self.ladder()
        for label, size in self.sizes.items():
            for budget in self.budgets:
                for seed in self.seeds:
                    self.evaluate(label, shape_of_size(size), budget, seed)
        return self

    def ladder(self) -> Paper:
        """Trainings alone."""
        for label, size in self.sizes.items():
            for budget in self.budgets:
                for seed in self.seeds:
                    self.train(label, shape_of_size(size), budget, seed)
        return self

    def spec(self) -> str:
        asked = {"study": "paper", "runs": self.runs, "config": CONFIG}
        return json.dumps(asked | {"forecasts": self.forecasts} if self.forecasts else asked)

    def add(self, verb, id, labels, result, spec, record=True, threads=1, **said) -> Path:
        """One run of ten seconds, after the one before; `said` is status and reason.

        Its record.json is left out where `record` is False. Returns its folder.
        """
        folder = self.root / "runs" / verb / id
        path = folder / "record.json"
        self.runs.append({"id": id, "verb": verb, "path": str(path), "labels": labels})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").write_text("a log\n")
        if record:
            seconds = {"startup": 1.5, "total": 10.0}
            made = results.provenance(verb, threads, self.clock)
            self.clock += seconds["total"]
            result = result if said.get("status", "ok") == "ok" else {}
            about = {"id": id, "verb": verb, "spec": spec, "seconds": seconds, **said}
            Record(**about, provenance=made, result=result).write(path)
        return folder

    def train(
        self, label, shape: Shape, budget, seed=0, named=(), changed=(), data=DATA, **said
    ) -> Path:
        """`named` are more labels of the study, `changed` keys of the result; the loss may be a
        function of the law's."""
        loss = self.law(shape.size, budget) * (1 + self._wiggle(shape.size, budget, seed))
        spec = {**results.TRAIN_SPEC, "model": shape.model_dump(), "tokens": budget, "seed": seed}
        named, changed = dict(named), dict(changed)
        labels = {"model": label, "seed": seed, "budget": budget} | named
        loss = changed.pop("of_loss", float)(loss)
        result = results.train(shape, budget, loss) | changed
        about = [f"{value:g}" if isinstance(value, float) else value for value in named.values()]
        id = "-".join([f"{label}-{budget}-s{seed}", *map(str, about)])
        folder = self.add("train", id, labels, result, {**spec, "data": data}, **said)
        with open(folder / "curve.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["tokens", "train_loss", "validation_loss", "learning_rate"])
            for part in range(1, 101):
                tokens = budget * part // 100
                held_out = f"{loss:.6f}" if part == 100 else ""
                rows.writerow([tokens, self.law(shape.size, tokens) + 0.05, held_out, 0.003])
        return folder

    def rates(self, label, budget, optimum, role="sensitivity", factors=(0.5, 2.0), **changed):
        """Trainings of one size at other rates; the loss is a parabola in their logarithm that is
        lowest at `optimum`, and at the recipe's own rate is the law's."""
        for factor in factors:
            place, own = (math.log(rate / optimum) ** 2 for rate in (factor, 1.0))
            off = {"of_loss": lambda loss, off=0.1 * (place - own): loss + off}
            named = {"role": role, "factor": factor}
            self.train(label, shape_of_size(self.sizes[label]), budget, 0, named, off | changed)

    def text(self, name, steps=(), **changed) -> str:
        """Prepares a training text, each step of its cleaning taking a tenth; returns its id."""
        result = {**results.PREPARE, "overlapping_documents": 7, **changed}
        result["cleaning"] = results.cleaning(steps)
        labels, id = {"data": name} if name else {}, f"text-{name}" if name else DATA
        self.add("prepare", id, labels, result, {"corpus": {"source": "files"}})
        return id

    def trained_on(self, name, prepare, off=0.0, same_text=False, unique_tokens=None):
        """The ladder on another text: losses that are higher by `off` nats per token."""
        named = {"role": "ladder", "data": name, "same_text": same_text}
        changed = {"of_loss": lambda loss: loss + off}
        for label, size in self.sizes.items():
            for budget in self.budgets:
                unique = min(budget, unique_tokens or budget)
                for seed in self.seeds:
                    given = changed | {"unique_tokens": unique}
                    self.train(label, shape_of_size(size), budget, seed, named, given, prepare)

    def forecast(self, *places, written, name="held-1", said=(), **content) -> Path:
        """A forecast of the trainings at `places` (model, budget), by the law itself: intervals of
        1, 2 and 4 % about it. `said` replaces keys of every point."""
        points = [self._point(label, budget) | dict(said) for label, budget in places]
        content = {**results.FORECAST, "id": name, "written": written, "points": points} | content
        path = self.root / "forecasts" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        self.forecasts.append(str(path))
        return path

    def _point(self, label, budget) -> dict:
        size = shape_of_size(self.sizes[label]).size
        loss = self.law(size, budget)
        point = {"run": f"{label}-{budget}-s0", "model": label, "params": size, "tokens": budget}
        point |= {"flops": 6.0 * size * budget, "point": loss}
        for percent, off in {"50": 0.01, "80": 0.02, "95": 0.04}.items():
            point |= {f"low_{percent}": loss * (1 - off), f"high_{percent}": loss * (1 + off)}
            point[f"covered_{percent}"] = 0.75
        return point

    def evaluate(
        self, label, shape, budget=None, seed=None, pretrained=None, named=(), changed=(), **said
    ) -> Path:
        """`named` are more labels of the study, `changed` keys of the result."""
        result = results.evaluate(label, shape, budget, law(shape.size, budget or 4e6))
        trained = {"budget": budget, "seed": seed} if budget else {}
        id = f"{label}-{budget}-s{seed}-eval" if budget else f"{label}-eval"
        id = "-".join([id, *map(str, dict(named).values())])
        spec = {"pretrained": pretrained} if pretrained else {"train": f"{label}-{budget}-s{seed}"}
        labels = {"model": label, "suite": "heldout"} | trained | dict(named)
        return self.add("evaluate", id, labels, result | dict(changed), spec, **said)

    def answer(self, label, budget, items: list[dict], seed=0, **more) -> Path:
        """An evaluation of one task, from its items (results_on_paper.choice)."""
        shape = shape_of_size(self.sizes[label])
        changed = {"scores": results.scores_of(items), "answers": results.answers_of(items)}
        folder = self.evaluate(label, shape, budget, seed, changed=changed, **more)
        rows = [row for item in items for row in item["rows"]]
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "items.parquet")
        return folder

    def limits(self, kind="cpu", precision="float32") -> Path:
        """What the device of every probe can do."""
        about = {"device": kind, "precision": precision}
        return self.add("limits", f"{kind}-{precision}", {}, results.limits(kind), about, threads=2)

    def probe(self, label, shape, pretrained=None, engine=None, precision=None, **changed) -> Path:
        """`changed` are keywords of `results.probe`."""
        spec = {"pretrained": pretrained} if pretrained else {"model": shape.model_dump()}
        spec |= {"engine": engine, "precision": precision or "float32"}
        kind, labels = changed.get("kind", "cpu"), {"model": label}
        result = results.probe(shape, precision=spec["precision"], **changed)
        id = "-".join(filter(None, (label, kind, engine, precision)))
        return self.add("probe", id, labels, result, spec, threads=2)

    def pretrained(self, label, shape) -> None:
        self.evaluate(label, shape, pretrained={"digest": "dd"})
        self.probe(label, shape, pretrained={"digest": "dd"})

    def _wiggle(self, *place: int) -> float:
        """The same for the same place, within +-noise, and without a pattern in size or budget."""
        return self.noise * ((hash(place) % 1009) / 504.5 - 1)
