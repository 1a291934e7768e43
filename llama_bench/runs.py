"""Every run that a configuration asks for: its spec, what it rests on, what the study calls it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_bench import sources
from llama_bench.config import Config
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


class Runs:
    """The runs of one configuration, and the forecast that some of them wait for."""

    def __init__(self, config: Config):
        self.config = config

    @cached_property
    def by_path(self) -> dict[str, Run]:
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
        return f"{STUDIES}/{self.config.study}/forecasts/{spec.id}.json" if spec else None

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
