"""Every fine-tuning that a configuration asks for, and the examples that they read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llama_bench import recipe, sources
from llama_bench.config import Config
from llama_bench.run import Run
from llama_bench.sections.finetune import FineTuning
from llama_bench.shape import Shape
from llama_bench.specs import ExamplesSpec, FinetuneSpec, Member
from llama_bench.trainings import Trainings

_AS_ASKED = ("steps", "validate_every", "patience", "batch", "precision")
WARMUP_SHARE = 0.05


@dataclass(frozen=True)
class Model:
    """One model of the study as others begin with it; `shape` where the study gives it."""

    member: Member
    inputs: tuple[str, ...]
    labels: dict[str, Any]
    shape: Shape | None


class Models:
    """The models of a study by their labels: trained ones at a budget, and pretrained ones."""

    def __init__(self, config: Config, trainings: Trainings):
        self.config, self.trainings = config, trainings

    @property
    def labels(self) -> list[str]:
        trained = [rung.model.label for rung in self.config.rungs]
        loaded = [each.label for each in self.config.models.pretrained if not each.random_weights]
        return trained + loaded

    def called(self, label: str, budget: float | None = None) -> Model:
        """The first seed's, of a trained one."""
        for loaded in self.config.models.pretrained:
            if loaded.label == label:
                member = Member(pretrained=loaded.reference)
                return Model(member, loaded.inputs, {"model": label}, None)
        return self.of(self.trainings.on_ladder(label, budget)[0])

    def llama(self, model: Model) -> tuple[Shape, int] | None:
        """Its shape and number of ids. Of a model trained elsewhere, or fine-tuned from one, the
        folder tells them; of one on the Hub, or what is no Llama, nothing does."""
        if model.shape:
            return model.shape, self.config.data.ids
        for loaded in self.config.models.pretrained:
            if loaded.label == model.labels["model"] and loaded.folder:
                return sources.llama_shape(loaded.folder)
        return None

    def of(self, training: Run) -> Model:
        kept = {key: training.labels[key] for key in ("model", "budget", "seed")}
        member = Member(verb="train", run=training.spec.id)
        return Model(member, (training.path,), kept, training.spec.model)


class Tunings:
    """The fine-tunings of one configuration, by the names that it gives them."""

    def __init__(self, config: Config, prepare: Run, models: Models):
        self.config, self.prepare, self.models = config, prepare, models

    @cached_property
    def examples(self) -> dict[str, Run]:
        return {name: self._examples(name, asked) for name, asked in self.config.finetune.items()}

    def _examples(self, name: str, asked: FineTuning) -> Run:
        spec = ExamplesSpec(
            task=f"finetune_{name}",
            data=self.prepare.spec.id,
            source=asked.source,
            corpus=asked.corpus,
            prompt=asked.prompt,
            answer=asked.answer,
            document=asked.document,
            choices=asked.choices,
            items=asked.items,
            validation=asked.validation,
            test=asked.test,
            seed=self.config.data.seed,
        )
        files = tuple(str(path) for path in asked.files)
        return Run(spec, (self.prepare.path, *files), labels={"finetune": name})

    def bases(self, name: str) -> list[Model]:
        asked = self.config.finetune[name]
        trained = {rung.model.label for rung in self.config.rungs}
        return [
            self.models.called(label, budget)
            for label in asked.models or self.models.labels
            for budget in (asked.budgets or [None] if label in trained else [None])
        ]

    @cached_property
    def runs(self) -> list[Run]:
        return [run for name in self.config.finetune for run in self._of(name)]

    def _of(self, name: str) -> Iterator[Run]:
        asked = self.config.finetune[name]
        every = self.bases(name)
        chosen = asked.fractions_of or [base.labels["model"] for base in every]
        compared = [base for base in every if base.labels["model"] in chosen]
        zero = {base.labels["model"]: base for base in compared if base.shape and asked.from_zero}
        for fraction in asked.fractions:
            bases = every if fraction == 1 else compared
            for seed in asked.seeds:
                for method in asked.methods:
                    for base in bases:
                        yield self._run(name, base, fraction, method, seed, from_zero=False)
                for base in zero.values():
                    yield self._run(name, base, fraction, "full", seed, from_zero=True)

    def _run(
        self, name: str, base: Model, fraction: float, method: str, seed: int, from_zero: bool
    ) -> Run:
        asked, examples = self.config.finetune[name], self.examples[name]
        llama = self.models.llama(base)
        size = llama[0].size if llama else None
        rate = asked.learning_rate or recipe.tuning_rate(size, method, from_zero)
        lora = asked.lora.model_dump() if method == "lora" else {}
        spec = FinetuneSpec(
            base=None if from_zero else base.member,
            model=base.shape if from_zero else None,
            data=self.prepare.spec.id,
            examples=examples.spec.id,
            fraction=None if fraction == 1 else fraction,
            method=method,
            context=asked.context or self.config.train.context,
            learning_rate=rate,
            warmup_steps=round(WARMUP_SHARE * asked.steps),
            chat_template=asked.chat_template or None,
            seed=seed,
            bos=None if self.config.evaluate.bos == "once" else self.config.evaluate.bos,
            **lora,
            **{key: getattr(asked, key) for key in _AS_ASKED},
        )
        labels = {"finetune": name, "method": method, "tuning_seed": seed, **base.labels}
        labels |= {} if fraction == 1 else {"fraction": fraction}
        if from_zero:
            labels = {k: v for k, v in labels.items() if k not in ("budget", "seed")}
            labels["from_zero"] = True
        return Run(
            spec,
            (self.prepare.path, examples.path, *(() if from_zero else base.inputs)),
            labels=labels,
            threads=self.config.train.threads,
            cost=float(size or 1e9) * asked.steps * asked.batch * spec.context,
        )

    def outcomes(self, name: str, model: str, budget: int | None) -> list[Run]:
        """What one fine-tuning made of one base from all of its data."""
        return [
            run
            for run in self.runs
            if run.labels["finetune"] == name
            and run.labels["model"] == model
            and run.labels.get("budget") == budget
            and not {"fraction", "from_zero"} & set(run.labels)
        ]
