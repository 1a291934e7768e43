"""Every evaluation that a configuration asks for: which models are asked what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

from llama_bench.config import Config
from llama_bench.fusions import Fusions
from llama_bench.run import Run
from llama_bench.sections.evaluate import HELD_OUT_TASKS, Suite
from llama_bench.specs import EvaluateSpec, TrainSpec
from llama_bench.trainings import Trainings
from llama_bench.tunings import Tunings


class Evaluations:
    """`tasks` is the run that writes the held-out tasks, where a suite has some."""

    def __init__(
        self,
        config: Config,
        tasks: Run | None,
        trainings: Trainings,
        tunings: Tunings,
        fusions: Fusions,
    ):
        self.config, self.tasks, self.trainings = config, tasks, trainings
        self.tunings, self.fusions = tunings, fusions
        self._apart: dict[tuple[str, ...], Run] = {}

    @cached_property
    def runs(self) -> list[Run]:
        """With the held-out tasks that fine-tuned models alone are asked. The first suite of each
        model starts before the others, which its process can go on to."""
        asked = [*self.of_suites, *self._of_tunings(), *self._of_fusions()]
        first = {run.spec.loaded: run for run in reversed(asked)}
        costs = [float(run is first[run.spec.loaded]) for run in asked]
        ordered = [replace(run, cost=cost) for run, cost in zip(asked, costs, strict=True)]
        return [*self._apart.values(), *ordered]

    @cached_property
    def of_suites(self) -> list[Run]:
        """The ladder and the pretrained models, on every suite."""
        listed = []
        for name, suite in self.config.evaluate.suites.items():
            for training in self.trainings.ladder:
                for state in self._states(training.spec):
                    labels = training.labels | ({"state": state} if state else {})
                    of = {"train": training.spec.id, "state": state}
                    listed.append(self._asked(name, suite, (training.path,), labels, of))
            for model in self.config.models.pretrained:
                if not model.random_weights:
                    labels, of = {"model": model.label}, {"pretrained": model.reference}
                    listed.append(self._asked(name, suite, model.inputs, labels, of))
        return listed

    def _states(self, training: TrainSpec) -> list[str | None]:
        """A cosine schedule leaves no trunk."""
        asked = self.config.evaluate.states
        return [
            None if state == "end" else state
            for state in asked
            if state == "end" or training.schedule is None
        ]

    def _of_tunings(self) -> Iterator[Run]:
        """Each fine-tuning's own test, before and after, and the suites that it names."""
        for name in self.config.finetune:
            for base in self.tunings.bases(name):
                labels = {**base.labels, "before": True}
                of = {base.member.verb or "pretrained": base.member.run or base.member.pretrained}
                yield self._tested(name, base.inputs, labels, of)
        for run in self.tunings.runs:
            of = {"finetune": run.spec.id}
            yield self._tested(run.labels["finetune"], (run.path,), run.labels, of)
            name = run.labels["finetune"]
            yield from self._wanted(run, self.config.finetune[name].suites, of, (name,))

    def _of_fusions(self) -> Iterator[Run]:
        for run in self.fusions.runs:
            asked = self.config.fuse[run.labels["fuse"]]
            of = {"fuse": run.spec.id}
            tunings = () if isinstance(asked.members, list) else asked.members.finetune or ()
            for name in tunings:
                yield self._tested(name, (run.path,), run.labels, of)
            yield from self._wanted(run, asked.suites, of, tuple(tunings))
        for group in self.fusions.groups:
            if group.control and group.control.spec.verb == "finetune":
                labels = {**group.control.labels, "method": "control"}
                of = {"finetune": group.control.spec.id}
                for name in self.config.fuse[group.name].members.finetune:
                    yield self._tested(name, (group.control.path,), labels, of)

    def _wanted(
        self, run: Run, suites: list[str] | None, of: dict[str, Any], learnt: tuple[str, ...]
    ) -> Iterator[Run]:
        for name, suite in self.config.evaluate.suites.items():
            if suites is None or name in suites:
                yield self._asked(name, suite, (run.path,), run.labels, of, learnt)

    def _held_out(self, learnt: tuple[str, ...]) -> Run:
        """The held-out tasks, of a model that learned from the examples of these fine-tunings:
        less those about documents that it learned from."""
        own = [name for name in learnt if self.config.finetune[name].source]
        examples = [self.tunings.examples[name] for name in own]
        ids = tuple(sorted({run.spec.id for run in examples}))
        if not ids:
            return self.tasks
        paths = (self.tasks.inputs[0], *sorted({run.path for run in examples}))
        spec = self.tasks.spec.model_copy(update={"apart_from": ids})
        return self._apart.setdefault(ids, Run(spec, paths))

    def _asked(
        self,
        name: str,
        suite: Suite,
        inputs: tuple,
        labels: dict,
        of: dict,
        learnt: tuple[str, ...] = (),
    ) -> Run:
        own = bool(set(suite.names) & set(HELD_OUT_TASKS))
        tasks = self._held_out(learnt) if own else None
        asked = self.config.evaluate
        spec = EvaluateSpec(
            **of,
            tasks=suite.names,
            held_out=tasks.spec.id if tasks else None,
            include=suite.include_digest,
            shots=suite.shots,
            limit=suite.limit,
            seed=suite.seed or 0,
            batch=suite.batch,
            prompts=tuple(asked.prompts) or None,
            prompt_tokens=asked.prompt_tokens if asked.prompts else None,
            chat_template=suite.chat_template or None,
            generation=suite.generation.asked if suite.generation else None,
            **self._manner,
        )
        held_out = (tasks.path,) if tasks else ()
        folder = (str(suite.folder),) if suite.folder else ()
        every = (*inputs, *held_out, *folder)
        return Run(spec, every, labels={**labels, "suite": name}, gpus=self._gpus(labels, of))

    def _tested(self, name: str, inputs: tuple, labels: dict, of: dict) -> Run:
        """On the test part of a fine-tuning's examples."""
        examples = self.tunings.examples[name]
        asked = self.config.finetune[name]
        spec = EvaluateSpec(
            **of,
            tasks=(examples.spec.task,),
            examples=(examples.spec.id,),
            chat_template=asked.chat_template or None,
            **self._manner,
        )
        every, labels = (*inputs, examples.path), {**labels, "suite": name}
        return Run(spec, every, labels=labels, gpus=self._gpus(labels, of))

    def _gpus(self, labels: dict, of: dict[str, Any]) -> int:
        """What a pretrained model takes, and what was fine-tuned from it; a fusion takes one."""
        loaded = {model.label: model.gpus for model in self.config.models.pretrained}
        return 1 if "fuse" in of else loaded.get(labels.get("model"), 1)

    @property
    def _manner(self) -> dict[str, Any]:
        asked = self.config.evaluate
        return {
            "precision": asked.precision,
            "engine": None if asked.engine == "transformers" else asked.engine,
            "quantization": asked.quantization,
            "bos": None if asked.bos == "once" else asked.bos,
        }
