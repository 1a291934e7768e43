"""Every training that a configuration asks for, and the forecast that some of them wait for.

A training stands in one of five roles: on the `ladder`, in a `sweep` that measures a size's best
rate, in the `sensitivity` strip beside the ladder, as a `member` that is trained to be fused, or as
the `control` of a fusion. Laws are fitted to the ladder alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from llama_bench.config import Config
from llama_bench.ladder import Rung, Step
from llama_bench.run import Run
from llama_bench.sections.data import Text
from llama_bench.specs import ForecastPoint, ForecastSpec, TrainSpec
from llama_bench.train_specs import TrainSpecs

STUDIES = "results/studies"


class Trainings:
    """`prepared` are the training texts of the study, each with the run that prepares it."""

    def __init__(self, config: Config, prepared: list[tuple[Text, Run]]):
        self.config, self.prepared = config, prepared
        self.specs = TrainSpecs(config, prepared[0][1].spec)

    @cached_property
    def ladder(self) -> list[Run]:
        """For each text, size and seed one trunk; a branch goes on from the one before it."""
        return [
            run
            for text, prepare in self.prepared
            for rung in self.config.rungs
            for seed in self.config.train.seeds
            for run in self._branches(text, prepare, rung, seed)
        ]

    def _branches(self, text: Text, prepare: Run, rung: Rung, seed: int) -> Iterator[Run]:
        own = self.prepared[0][1]
        sweep = [spec.record_path for _, spec in self.specs.sweep(rung)]
        trunk: dict[bool, tuple[str, ...]] = {True: (), False: ()}
        for step in rung.steps:
            if not text.is_on(rung.model.label, step.budget):
                continue
            held_out = self._is_held_out(rung, step)
            spec = self.specs.branch(prepare.spec, text.unique_tokens, rung, step, seed)
            inputs = (prepare.path, *trunk[held_out], *sweep)
            labels = {"role": "ladder", "data": text.name, "same_text": prepare is own}
            run = self._run(spec, inputs, rung, step, labels)
            yield run
            if spec.schedule is None:
                # what is forecast from must not wait for what is forecast
                trunk[True] = (run.path,)
                trunk[False] = trunk[False] if held_out else (run.path,)

    @cached_property
    def others(self) -> list[Run]:
        """The sweep's trainings, and the sensitivity strip's of the two smallest sizes."""
        listed = []
        for rung in self.config.rungs:
            for factor, spec in self.specs.sweep(rung):
                listed.append(
                    self._beside("sweep", factor, spec, rung, self.specs.sweep_step(rung))
                )
        smallest = sorted(self.config.rungs, key=lambda rung: rung.model.shape.size)[:2]
        for rung in smallest if self.config.train.sensitivity else []:
            for factor, spec in self.specs.sensitivity(rung):
                listed.append(self._beside("sensitivity", factor, spec, rung, rung.steps[-1]))
        return listed

    def _beside(self, role: str, factor: float, spec: TrainSpec, rung: Rung, step: Step) -> Run:
        inputs = (self.prepared[0][1].path,)
        return self._run(spec, inputs, rung, step, {"role": role, "factor": factor})

    def on_ladder(self, label: str, budget: float | None) -> list[Run]:
        """A model's trainings on the study's own text at a budget (None: its largest), by seed."""
        of = [run for run in self.ladder if run.labels["model"] == label and self._is_own(run)]
        rung = self.rung(label)
        wanted = rung.steps[-1].budget if budget is None else budget
        steps = {step.tokens for step in rung.steps if step.budget == wanted}
        return [run for run in of if run.labels["budget"] in steps]

    def _is_own(self, run: Run) -> bool:
        return "data" not in run.labels

    def rung(self, label: str) -> Rung:
        return next(rung for rung in self.config.rungs if rung.model.label == label)

    def beside(
        self,
        run: Run,
        role: str,
        seed: int | None = None,
        cooldown: int | None = None,
        tokens: int | None = None,
    ) -> Run:
        """A training like `run`, one of the ladder's, but for its seed, its cooldown's seed or its
        tokens. It goes on from the longest trunk of the ladder that is part of its own."""
        text, prepare = self.prepared[0]
        rung = self.rung(run.labels["model"])
        tokens = tokens or run.spec.tokens
        # with FLOP budgets a step is held out by its FLOPs: one as long as the ladder's is the same
        step = next((step for step in rung.steps if step.tokens == tokens), Step(tokens))
        seed = run.spec.seed if seed is None else seed
        spec = self.specs.branch(prepare.spec, text.unique_tokens, rung, step, seed)
        if cooldown is not None:
            spec = spec.model_copy(update={"cooldown_seed": cooldown})
        trunks = [
            each
            for each in self.ladder
            if self._is_own(each)
            and each.spec.trunk == spec.trunk
            and each.spec.trunk_steps <= spec.trunk_steps
        ]
        last = max(trunks, key=lambda each: each.spec.trunk_steps, default=None)
        sweep = tuple(each.record_path for _, each in self.specs.sweep(rung))
        trunk = (last.path,) if last and spec.schedule is None else ()
        inputs = (prepare.path, *trunk, *sweep)
        return self._run(spec, inputs, rung, step, {"role": role})

    def _run(self, spec: TrainSpec, inputs: tuple, rung: Rung, step: Step, labels: dict) -> Run:
        waits = self._is_held_out(rung, step) and self.forecast_path
        known = {"model": rung.model.label, "seed": spec.seed, "budget": step.tokens}
        labels = {**known, "flop_budget": step.flops, **labels}
        return Run(
            spec,
            inputs,
            after=(self.forecast_path,) if waits else (),
            labels={name: value for name, value in labels.items() if value is not None},
            threads=self.config.train.threads,
            gpus=self.config.train.gpus,
            cost=float(rung.model.shape.size) * rung.steps[-1].tokens,
        )

    def _is_held_out(self, rung: Rung, step: Step) -> bool:
        asked = self.config.hold_out
        return rung.model.label in asked.models or step.budget in asked.budgets

    @cached_property
    def forecast_spec(self) -> ForecastSpec | None:
        """What is forecast from what, on the study's own text; None where nothing is held out."""
        used, points = [], []
        text, prepare = self.prepared[0]
        for rung in self.config.rungs:
            for seed in self.config.train.seeds:
                for step in rung.steps:
                    spec = self.specs.branch(prepare.spec, text.unique_tokens, rung, step, seed)
                    if self._is_held_out(rung, step):
                        points.append(self._point(rung, spec))
                    else:
                        used.append(spec.id)
        return ForecastSpec(runs=tuple(used), points=tuple(points)) if points else None

    def _point(self, rung: Rung, spec: TrainSpec) -> ForecastPoint:
        per_token = rung.model.shape.flops_per_token(self.config.data.ids, spec.context)
        tokens = spec.steps * spec.batch_tokens
        return ForecastPoint(
            run=spec.id,
            model=rung.model.label,
            params=rung.model.shape.size,
            tokens=tokens,
            flops=float(per_token) * tokens,
        )

    @cached_property
    def forecast_path(self) -> str | None:
        spec = self.forecast_spec
        return f"{STUDIES}/{self.config.study}/forecasts/{spec.id}.json" if spec else None
