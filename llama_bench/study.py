"""The study: every run that config.yaml asks for, and all that the workflow's rules need to know.

This is all that the Snakefile imports, so it parses in a fraction of a second: no torch, no
pandas. Order and paths are the rules' matter; what a run is asked, and what it rests on, is here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_bench import config as configuration
from llama_bench import sources
from llama_bench.config import PARTIAL, Config
from llama_bench.fields import UserError
from llama_bench.recipe import peak_rate
from llama_bench.sections import HELD_OUT_TASKS, Suite, Trained
from llama_bench.specs import (
    EvaluateSpec,
    ForecastPoint,
    ForecastSpec,
    PrepareSpec,
    ProbeSpec,
    Spec,
    TasksSpec,
    TrainSpec,
)

__all__ = ["Run", "Study", "UserError", "load"]

STUDIES = "results/studies"


@dataclass(frozen=True)
class Run:
    """One run of the study: its spec, what it rests on, and what the study calls it."""

    spec: Spec
    inputs: tuple[str, ...] = ()  # what the command is given
    after: tuple[str, ...] = ()  # what must be there before it starts
    labels: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    cost: float = 0.0  # rough work, in parameters x tokens: dear runs start first

    @property
    def path(self) -> str:
        return self.spec.record_path


class Study:
    """One configuration's runs, by the path of their records."""

    def __init__(self, config: Config):
        self.config = config
        self.name = config.study
        self.folder = f"{STUDIES}/{self.name}"
        self.laws = config.laws

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Every run that the study asks for, by the path of its record."""
        listed = [*self._tasks, *self._trainings]
        listed = [self._prepare, *listed] if listed else []
        listed += [*self._evaluations, *self._probes]
        if self.config.probe.device == "cuda" and sources.device() != "cuda":
            for run in self._probes:
                if not Path(run.path).exists():
                    raise UserError(
                        "config: probe.device: cuda is asked for; this machine shows no NVIDIA GPU "
                        "and no record from another machine is there"
                    )
        return {run.path: run for run in listed}

    @cached_property
    def _prepare(self) -> Run:
        data = self.config.data
        spec = PrepareSpec(
            corpus=data.reference,
            vocab_size=data.vocab_size,
            held_out=data.held_out,
            seed=data.seed,
        )
        files = tuple(str(path) for path in sources.corpus_files(data.corpus))
        return Run(spec, files, threads=2)

    @cached_property
    def _tasks(self) -> list[Run]:
        asked = {name for suite in self.config.evaluate.suites.values() for name in suite.names}
        if not asked & set(HELD_OUT_TASKS):
            return []
        spec = TasksSpec(
            data=self._prepare.spec.id, items=self.config.evaluate.items, seed=self.config.data.seed
        )
        return [Run(spec, (self._prepare.path,))]

    @cached_property
    def _trainings(self) -> list[Run]:
        """For each size and seed one trunk; a branch goes on from the one before it."""
        after = (self.forecast_path,) if self.forecast_path else ()
        listed = []
        for model in self.config.models.train:
            for seed in self.config.train.seeds:
                trunk: dict[bool, tuple[str, ...]] = {True: (), False: ()}
                for budget in self.config.train.budgets:
                    held_out = self._is_held_out(model, budget)
                    run = Run(
                        self._train_spec(model, seed, budget),
                        (self._prepare.path, *trunk[held_out]),
                        after=after if held_out else (),
                        labels={"model": model.label, "seed": seed, "budget": budget},
                        threads=self.config.train.threads,
                        cost=float(model.shape.size) * max(self.config.train.budgets),
                    )
                    listed.append(run)
                    # what is forecast from must not wait for what is forecast
                    trunk[True] = (run.path,)
                    trunk[False] = trunk[False] if held_out else (run.path,)
        return listed

    def _is_held_out(self, model: Trained, budget: int) -> bool:
        asked = self.config.hold_out
        return model.label in asked.models or budget in asked.budgets

    @cached_property
    def forecast_spec(self) -> ForecastSpec | None:
        """What is forecast from what; None where nothing is held out."""
        used, points = [], []
        for model in self.config.models.train:
            for seed in self.config.train.seeds:
                for budget in self.config.train.budgets:
                    spec = self._train_spec(model, seed, budget)
                    if not self._is_held_out(model, budget):
                        used.append(spec.id)
                        continue
                    vocab_size = self.config.data.vocab_size
                    per_token = model.shape.flops_per_token(vocab_size, spec.context)
                    tokens = spec.steps * spec.batch_tokens
                    points.append(
                        ForecastPoint(
                            run=spec.id,
                            model=model.label,
                            params=model.shape.size,
                            tokens=tokens,
                            flops=float(per_token) * tokens,
                        )
                    )
        return ForecastSpec(runs=tuple(used), points=tuple(points)) if points else None

    @property
    def forecast_path(self) -> str | None:
        spec = self.forecast_spec
        return f"{self.folder}/forecasts/{spec.id}.json" if spec else None

    def _train_spec(self, model: Trained, seed: int, budget: int) -> TrainSpec:
        recipe = self.config.train
        rate = model.learning_rate or recipe.learning_rate or peak_rate(model.shape)
        return TrainSpec(
            model=model.shape,
            data=self._prepare.spec.id,
            tokens=budget,
            learning_rate=rate,
            seed=seed,
            **recipe.model_dump(exclude={"budgets", "seeds", "learning_rate", "threads"}),
        )

    @cached_property
    def _evaluations(self) -> list[Run]:
        listed = []
        for name, suite in self.config.evaluate.suites.items():
            for training in self._trainings:
                spec = self._evaluate_spec(suite, train=training.spec.id)
                inputs = (training.path, *self._task_inputs(suite))
                labels = {**training.labels, "suite": name}
                listed.append(Run(spec, inputs, labels=labels))
            for model in self.config.models.pretrained:
                spec = self._evaluate_spec(suite, pretrained=model.reference)
                inputs = (*model.inputs, *self._task_inputs(suite))
                labels = {"model": model.label, "suite": name}
                listed.append(Run(spec, inputs, labels=labels))
        return listed

    def _evaluate_spec(self, suite: Suite, **model) -> EvaluateSpec:
        asked = self.config.evaluate
        return EvaluateSpec(
            **model,
            tasks=suite.names,
            held_out=self._tasks[0].spec.id if set(suite.names) & set(HELD_OUT_TASKS) else None,
            include=suite.include_digest,
            shots=suite.shots,
            limit=suite.limit,
            prompts=tuple(asked.prompts) or None,
            prompt_tokens=asked.prompt_tokens if asked.prompts else None,
        )

    def _task_inputs(self, suite: Suite) -> tuple[str, ...]:
        held_out = (self._tasks[0].path,) if set(suite.names) & set(HELD_OUT_TASKS) else ()
        return (*held_out, suite.include) if suite.include else held_out

    @cached_property
    def _probes(self) -> list[Run]:
        asked = self.config.probe
        if not asked.phases:
            return []
        shared = {
            **asked.model_dump(exclude={"device"}),
            "device": sources.device() if asked.device == "auto" else asked.device,
        }
        trained = [
            Run(
                ProbeSpec(model=model.shape, vocab_size=self.config.data.vocab_size, **shared),
                labels={"model": model.label},
            )
            for model in self.config.models.train
        ]
        loaded = [
            Run(
                ProbeSpec(pretrained=model.reference, **shared),
                model.inputs,
                labels={"model": model.label},
            )
            for model in self.config.models.pretrained
        ]
        return trained + loaded

    # --- what the rules ask ---

    def run(self, verb: str, run_id: str) -> Run:
        """The run that a rule's wildcards mean. Raises KeyError where this study has none."""
        return self.runs[f"results/runs/{verb}/{run_id}/record.json"]

    def given(self, verb: str, run_id: str) -> list[str]:
        """A run's inputs, which a finished one needs no more: nothing can make it run again."""
        run = self.run(verb, run_id)
        return [] if Path(run.path).exists() else list(run.inputs)

    def after(self, run_id: str) -> list[str]:
        """What must be there before a training may start, though it does not read it."""
        run = self.run("train", run_id)
        return [] if Path(run.path).exists() else list(run.after)

    def records(self, folder: str) -> list[str]:
        """What `collect` waits for: every record; for the partial report those that are there."""
        forecast = [] if folder.endswith(PARTIAL) else [self.forecast_path]
        return [run.path for run in self._reported(folder)] + [path for path in forecast if path]

    def collect_spec(self, folder: str) -> str:
        """The listing of all runs is too long for a command; the configuration makes it again."""
        have = hashlib.sha256("".join(self.records(folder)).encode()).hexdigest()[:8]
        return _json({"config": self.as_written(), "study": folder, "records": have})

    def report_spec(self, folder: str) -> str:
        unfinished = self.unfinished if folder.endswith(PARTIAL) else []
        return _json({"study": folder, "config": self.as_written(), "unfinished": unfinished})

    def listing(self, folder: str) -> dict[str, Any]:
        """The runs, finished or not, with what the study calls them."""
        runs = [
            {"id": run.spec.id, "verb": run.spec.verb, "path": run.path, "labels": run.labels}
            for run in self.runs.values()
        ]
        return {
            "study": folder,
            "runs": runs,
            "config": self.as_written(),
            "forecasts": sorted(str(path) for path in Path(self.folder).glob("forecasts/*.json")),
        }

    def forecast_from(self) -> list[str]:
        """The records that the forecast rests on, which a written one needs no more."""
        if Path(self.forecast_path).exists():
            return []
        return [f"results/runs/train/{run}/record.json" for run in self.forecast_spec.runs]

    def _reported(self, folder: str) -> list[Run]:
        listed = list(self.runs.values())
        if folder.endswith(PARTIAL):
            return [run for run in listed if Path(run.path).exists()]
        return listed

    @property
    def unfinished(self) -> list[str]:
        return [run.path for run in self.runs.values() if not Path(run.path).exists()]

    def as_written(self) -> dict[str, Any]:
        """The configuration as JSON, without what was left to its default."""
        return self.config.model_dump(mode="json", exclude_unset=True)

    @cached_property
    def code_digest(self) -> str:
        """Of everything in derive/: a better plot is drawn again, by the params of its rule."""
        digest = hashlib.sha256()
        for path in sorted((Path(__file__).parent / "derive").rglob("*")):
            if path.suffix in (".py", ".j2", ".css"):
                digest.update(path.read_bytes())
        return digest.hexdigest()[:8]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def load(given: dict[str, Any] | None = None) -> Study:
    """The study that snakemake's `config` asks for; without one, that of config.yaml.

    `file` names another file, and any other key replaces that file's; a `config` that has
    `models` (from --configfile) stands for itself. Raises UserError.
    """
    given = dict(given or {})
    if "models" not in given:
        given = {**configuration.read_yaml(Path(given.pop("file", "config.yaml"))), **given}
    return Study(configuration.check(given))


def listing_of(collect_spec: str) -> str:
    """The JSON listing of runs that a `collect` spec stands for. Raises UserError."""
    try:
        asked = json.loads(collect_spec)
        return _json(Study(configuration.check(asked["config"])).listing(asked["study"]))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"collect: SPEC is not what the workflow passes ({error!r})") from None
