"""Every run that a configuration asks for: its spec, what it rests on, what the study calls it."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from llama_bench import machine
from llama_bench.config import Config
from llama_bench.evaluations import Evaluations
from llama_bench.fields import UserError
from llama_bench.fusions import Fusions
from llama_bench.run import Run
from llama_bench.sections.data import Text
from llama_bench.sections.evaluate import HELD_OUT_TASKS
from llama_bench.specs import (
    ForecastSpec,
    LimitsSpec,
    PrepareSpec,
    ProbeSpec,
    TasksSpec,
)
from llama_bench.trainings import STUDIES, Trainings
from llama_bench.tunings import Models, Tunings

OF_ENSEMBLES = ("prefill", "decode")
_AS_ASKED = ("phases", "batches", "contexts", "repeats", "seconds")


class Runs:
    """The runs of one configuration, by what they rest on."""

    def __init__(self, config: Config):
        self.config = config

    @cached_property
    def by_path(self) -> dict[str, Run]:
        """Every run that the study asks for, by the path of its record."""
        trainings = [*self.trainings.others, *self.fusions.made, *self.trainings.ladder]
        trainings = [self._waiting(run) for run in trainings]
        made = [*self.tunings.examples.values(), *self.tunings.runs, *self.fusions.runs]
        listed = [*self._tasks, *trainings, *made]
        listed = [*(run for _, run in self._prepared), *listed] if listed else []
        listed += [*self.evaluations.runs, *self._limits, *self._probes]
        return {run.path: run for run in listed}

    def check_device(self, elsewhere: bool) -> None:
        """Before the first job starts: raises UserError where probes wait for a device that is not
        there. With `elsewhere` jobs run on other machines, of whose devices this one knows nothing:
        the jobs look themselves, but the study has to say which it means."""
        processes, here = self.config.train.gpus, machine.gpus()
        if not elsewhere and processes > max(here, 1):
            print(
                f"llama_bench: train.gpus: {processes}, but this machine shows {here}: each "
                f"training runs as {processes} processes on what there is",
                file=sys.stderr,
            )
        asked = self.config.probe
        if all(Path(run.path).exists() for run in (*self._limits, *self._probes)):
            return
        if elsewhere and asked.device == "auto":
            raise UserError(
                "config: probe.device: auto is the device of the machine that plans the study, but "
                "its jobs run on others; write cpu, cuda, or the name of the GPU"
            )
        if not elsewhere and asked.kind == "cuda" and machine.device() != "cuda":
            raise UserError(
                f"config: probe.device: {asked.device} is asked for; this machine shows no NVIDIA "
                "GPU and no record from another machine is there; write cpu or auto, or run the "
                "study where the GPU is"
            )

    @cached_property
    def trainings(self) -> Trainings:
        return Trainings(self.config, self._prepared)

    @cached_property
    def models(self) -> Models:
        return Models(self.config, self.trainings)

    @cached_property
    def tunings(self) -> Tunings:
        return Tunings(self.config, self._prepared[0][1], self.models)

    @cached_property
    def fusions(self) -> Fusions:
        return Fusions(self.config, self._prepared[0][1], self.models, self.tunings)

    @cached_property
    def evaluations(self) -> Evaluations:
        tasks = self._tasks[0] if self._tasks else None
        return Evaluations(self.config, tasks, self.trainings, self.tunings, self.fusions)

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
    def forecasts(self) -> dict[str, ForecastSpec]:
        """By the path of its file: what is foretold of the losses, then of each suite's scores."""
        losses = self.trainings.forecast_spec
        listed = [losses] if losses else []
        for name, suite in self.config.evaluate.suites.items() if losses else ():
            known = {
                run.spec.train: run.spec.id
                for run in self.evaluations.of_suites
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
        single = [
            Run(self._probe_spec(engine, precision, of), inputs, labels={"model": label})
            for label, of, inputs in (*shapes, *loaded)
            for engine, precision in ways
        ]
        return single + self._ensembles

    @property
    def _ensembles(self) -> list[Run]:
        """Models whose outputs are fused: they are not trained as one, and no engine but
        transformers' knows them. Asked is what the report holds against the gain: the cell that
        one reader waits for."""
        phases = tuple(phase for phase in self.config.probe.phases if phase in OF_ENSEMBLES)
        asked, listed = self.config.probe, []
        one_reader = {"batches": (min(asked.batches),), "contexts": (max(asked.contexts),)}
        for (shapes, ids), labels in self.fusions.shapes.items() if phases else ():
            of = {"members": shapes, "vocab_size": ids, "phases": phases} | one_reader
            for precision in asked.precisions:
                if precision in ("float32", "bfloat16"):
                    spec = self._probe_spec("transformers", precision, of)
                    listed.append(Run(spec, labels=labels))
        return listed

    def _probe_spec(self, engine: str, precision: str, of: dict) -> ProbeSpec:
        asked = self.config.probe
        as_asked = {key: getattr(asked, key) for key in _AS_ASKED}
        return ProbeSpec(
            **{**as_asked, **of},
            **self._device,
            engine=None if engine == "transformers" else engine,
            precision=precision,
            max_batch=asked.max_batch or None,
        )
