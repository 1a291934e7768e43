"""Every run that a configuration asks for: its spec, what it rests on, what the study calls it."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from llama_bench import machine
from llama_bench.config import Config
from llama_bench.fields import UserError
from llama_bench.run import Run
from llama_bench.sections.data import Text
from llama_bench.sections.evaluate import HELD_OUT_TASKS, Suite
from llama_bench.specs import (
    EvaluateSpec,
    ForecastSpec,
    LimitsSpec,
    PrepareSpec,
    ProbeSpec,
    TasksSpec,
    TrainSpec,
)
from llama_bench.trainings import STUDIES, Trainings

_AS_ASKED = ("phases", "batches", "contexts", "repeats", "seconds")


class Runs:
    """The runs of one configuration, by what they rest on."""

    def __init__(self, config: Config):
        self.config = config

    @cached_property
    def by_path(self) -> dict[str, Run]:
        """Every run that the study asks for, by the path of its record."""
        ladder = [self._waiting(run) for run in self.trainings.ladder]
        trainings = [*self.trainings.others, *ladder]
        listed = [*self._tasks, *trainings]
        listed = [*(run for _, run in self._prepared), *listed] if listed else []
        listed += [*self._evaluations, *self._limits, *self._probes]
        if self.config.probe.kind == "cuda" and machine.device() != "cuda":
            for run in self._probes:
                if not Path(run.path).exists():
                    raise UserError(
                        f"config: probe.device: {self.config.probe.device} is asked for; this "
                        "machine shows no NVIDIA GPU and no record from another machine is there"
                    )
        return {run.path: run for run in listed}

    @cached_property
    def trainings(self) -> Trainings:
        return Trainings(self.config, self._prepared)

    @cached_property
    def _prepared(self) -> list[tuple[Text, Run]]:
        """The study's own text first; variants that differ in what training reads of it share its
        run."""
        data, texts = self.config.data, self.config.data.texts
        spec = PrepareSpec(
            corpus=texts[0].corpus,
            vocab_size=data.ids,
            held_out=data.held_out,
            seed=data.seed,
            tokenizer=data.tokenizer.reference if data.tokenizer else None,
            clean=texts[0].clean or None,
        )
        tokenizer = data.tokenizer.inputs if data.tokenizer else ()
        files = tuple(str(path) for path in texts[0].files)
        own = Run(spec, (*files, *tokenizer), threads=2)
        return [(text, self._prepare(text, own)) for text in texts]

    def _prepare(self, text: Text, own: Run) -> Run:
        clean = text.clean or None
        if (text.corpus, clean) == (own.spec.corpus, own.spec.clean):
            return own
        spec = PrepareSpec(
            corpus=text.corpus, seed=self.config.data.seed, clean=clean, held_out_of=own.spec.id
        )
        files = tuple(str(path) for path in text.files)
        return Run(spec, (own.path, *files), labels={"data": text.name}, threads=2)

    @cached_property
    def _tasks(self) -> list[Run]:
        asked = {name for suite in self.config.evaluate.suites.values() for name in suite.names}
        if not asked & set(HELD_OUT_TASKS):
            return []
        own = self._prepared[0][1]
        spec = TasksSpec(
            data=own.spec.id, items=self.config.evaluate.items, seed=self.config.data.seed
        )
        return [Run(spec, (own.path,))]

    @cached_property
    def _evaluations(self) -> list[Run]:
        listed = []
        for name, suite in self.config.evaluate.suites.items():
            for training in self.trainings.ladder:
                for state in self._states(training.spec):
                    spec = self._evaluate_spec(suite, train=training.spec.id, state=state)
                    inputs = (training.path, *self._task_inputs(suite))
                    labels = {**training.labels, "suite": name}
                    labels |= {"state": state} if state else {}
                    listed.append(Run(spec, inputs, labels=labels))
            for model in self.config.models.pretrained:
                if model.random_weights:
                    continue
                spec = self._evaluate_spec(suite, pretrained=model.reference)
                inputs = (*model.inputs, *self._task_inputs(suite))
                labels = {"model": model.label, "suite": name}
                listed.append(Run(spec, inputs, labels=labels))
        return listed

    @cached_property
    def forecasts(self) -> dict[str, ForecastSpec]:
        """By the path of its file: what is foretold of the losses, then of each suite's scores."""
        losses = self.trainings.forecast_spec
        listed = [losses] if losses else []
        for name, suite in self.config.evaluate.suites.items() if losses else ():
            known = {
                run.spec.train: run.spec.id
                for run in self._evaluations
                if run.labels["suite"] == name and not run.spec.state
            }
            if known:  # the end of every training, or of none
                points = [p.model_copy(update={"evaluation": known[p.run]}) for p in losses.points]
                evaluations = tuple(known[run] for run in losses.runs)
                asked = {"points": (*points,), "tasks": suite.names, "evaluations": evaluations}
                listed.append(losses.model_copy(update=asked))
        return {f"{STUDIES}/{self.config.study}/forecasts/{spec.id}.json": spec for spec in listed}

    def _waiting(self, run: Run) -> Run:
        """A held-out training, which waits for every forecast; any other as it is."""
        return replace(run, after=tuple(self.forecasts)) if run.after else run

    def _states(self, training: TrainSpec) -> list[str | None]:
        """A cosine schedule leaves no trunk."""
        asked = self.config.evaluate.states
        return [
            None if state == "end" else state
            for state in asked
            if state == "end" or training.schedule is None
        ]

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
            precision=asked.precision,
            engine=None if asked.engine == "transformers" else asked.engine,
            quantization=asked.quantization,
            chat_template=suite.chat_template or None,
            generation=suite.generation,
            bos=None if asked.bos == "once" else asked.bos,
        )

    def _task_inputs(self, suite: Suite) -> tuple[str, ...]:
        held_out = (self._tasks[0].path,) if set(suite.names) & set(HELD_OUT_TASKS) else ()
        return (*held_out, str(suite.folder)) if suite.folder else held_out

    @property
    def _device(self) -> dict[str, str | None]:
        asked = self.config.probe
        return {"device": asked.kind or machine.device(), "device_name": asked.device_name}

    @cached_property
    def _limits(self) -> list[Run]:
        """What the device can do, in each precision that it multiplies in."""
        if not self._probes:
            return []
        products = {"float32": "float32"}
        asked = {products.get(each, "bfloat16") for each in self.config.probe.precisions}
        return [Run(LimitsSpec(**self._device, precision=each)) for each in sorted(asked)]

    @cached_property
    def _probes(self) -> list[Run]:
        """Each model with each engine in each precision."""
        asked = self.config.probe
        if not asked.phases:
            return []
        ways = [(engine, precision) for engine in asked.engines for precision in asked.precisions]
        shapes = [
            (rung.model.label, {"model": rung.model.shape, "vocab_size": self.config.data.ids}, ())
            for rung in self.config.rungs
        ]
        loaded = [
            (
                model.label,
                {"pretrained": model.reference, "random_weights": model.random_weights or None},
                model.inputs,
            )
            for model in self.config.models.pretrained
        ]
        return [
            Run(self._probe_spec(engine, precision, of), inputs, labels={"model": label})
            for label, of, inputs in (*shapes, *loaded)
            for engine, precision in ways
        ]

    def _probe_spec(self, engine: str, precision: str, of: dict) -> ProbeSpec:
        asked = self.config.probe
        return ProbeSpec(
            **of,
            **self._device,
            engine=None if engine == "transformers" else engine,
            precision=precision,
            max_batch=asked.max_batch or None,
            **{key: getattr(asked, key) for key in _AS_ASKED},
        )
