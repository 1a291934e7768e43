"""A study's configuration as a whole: what does not hold together between its sections.

What can be known to be wrong before any job starts is refused here, by key.
"""

from __future__ import annotations

from functools import cached_property

from pydantic import field_validator, model_validator

from llama_bench import members, recipe, references, task_index
from llama_bench.fields import Base, Name, short, unknown
from llama_bench.ladder import Rung, Step, rungs
from llama_bench.sections.data import Data
from llama_bench.sections.evaluate import HELD_OUT_TASKS, Evaluate
from llama_bench.sections.finetune import FineTuning
from llama_bench.sections.fit import LAW_NEEDS, Fit, HoldOut, Need
from llama_bench.sections.fuse import Fusion
from llama_bench.sections.models import Models
from llama_bench.sections.probe import Probe
from llama_bench.sections.train import FlopBudgets, Train
from llama_bench.text_files import kind

PARTIAL = "-partial"  # results/studies/<study>-partial holds the report of what is there


class Config(Base):
    """A whole study. Every key has a default, but some model must be named."""

    study: Name = "default"
    """Its folder below results/studies."""
    data: Data = Data()
    """The text."""
    models: Models = Models()
    """The shapes to train and the models to load."""
    train: Train = Train()
    """How far the sizes are trained, and how."""
    finetune: dict[Name, FineTuning] = {}
    """Adaptations of these models, by a name each."""
    fuse: dict[Name, Fusion] = {}
    """Combinations of these models, by a name each."""
    evaluate: Evaluate = Evaluate()
    """What every model is asked."""
    probe: Probe = Probe()
    """How speed, memory and energy are measured."""
    hold_out: HoldOut = HoldOut()
    """What is forecast before it is trained."""
    fit: Fit = Fit()
    """Which laws are fitted."""

    @field_validator("study")
    @classmethod
    def _not_reserved(cls, name):
        if name.endswith(PARTIAL):
            raise ValueError(f"{name!r}: names ending in {PARTIAL!r} are kept for partial reports")
        return name

    @model_validator(mode="after")
    def _holds_together(self):
        if not self.rungs and not self.models.pretrained:
            raise ValueError(
                "models: no model is given; add one under train: or pretrained:, or give "
                "train.budgets as {flops: [...]}"
            )
        self._check_trainings()
        self._check_corpus()
        self._check_tasks()
        self._check_laws()
        self._check_hold_out()
        self._check_references()
        return self

    @cached_property
    def rungs(self) -> list[Rung]:
        """Every size that is trained, with its budgets."""
        return rungs(self.models.train, self.train, self.data.ids, self.train.context)

    def horizon(self, rung: Rung, step: Step) -> int:
        """The tokens that a training's rate and warm-up are meant for."""
        if self.train.schedule == "cosine":
            return step.tokens
        return self.train.horizon or recipe.TOKENS_PER_PARAMETER * rung.model.shape.size

    def batch(self, rung: Rung, step: Step) -> int:
        """Sequences a step."""
        return self.train.batch or recipe.batch(self.horizon(rung, step), self.train.context)

    def warmup_tokens(self, rung: Rung, step: Step) -> int:
        if self.train.warmup_tokens is not None:
            return self.train.warmup_tokens
        return recipe.warmup_tokens(rung.model.shape.size, self.horizon(rung, step))

    def _check_trainings(self):
        """Every budget must hold a step, its warm-up, and something after it."""
        flops = isinstance(self.train.budgets, FlopBudgets)
        share = 1.0 if self.train.schedule == "cosine" else 1 - self.train.decay_share
        swept = self.train.sweep and self.train.sweep.budget
        for rung in self.rungs:
            for step in (*rung.steps, *((Step(swept),) if swept else ())):
                where = f"train.budgets: {short(step.tokens)} tokens for {rung.model.label!r}"
                if flops and step.flops:
                    where = f"train.budgets.flops: {step.flops:g} gives {rung.model.label!r} " + (
                        f"{short(step.tokens)} tokens, which"
                    )
                batch_tokens = self.batch(rung, step) * self.train.context
                if step.tokens < batch_tokens:
                    raise ValueError(
                        f"{where} are less than one step (batch x context = {batch_tokens}); "
                        "raise the budget, or give a smaller train.batch or train.context"
                    )
                warmup = self.warmup_tokens(rung, step)
                if warmup >= step.tokens * share:
                    raise ValueError(f"{where} {self._too_short(warmup, step.tokens * share)}")

    def _too_short(self, warmup: int, tokens: float) -> str:
        if self.train.schedule == "cosine":
            return (
                f"are no more than their {warmup} warmup_tokens; raise the budget, or give fewer "
                "train.warmup_tokens"
            )
        return (
            f"leave no constant part after {warmup} warmup_tokens ({tokens:.0f} tokens come before "
            "the decay); raise the budget, or give fewer train.warmup_tokens or a shorter "
            "train.horizon"
        )

    def _check_corpus(self):
        """A token is at least a byte, so a part of fewer bytes than a window holds none."""
        size = self.data.texts[0].most_tokens
        if size and self.rungs and size * self.data.held_out <= self.train.context:
            raise ValueError(
                f"train.context: {self.train.context} tokens are longer than the held-out part of "
                f"the corpus ({size} bytes, {self.data.held_out:.0%} of them held out); "
                "shorten the context or give more text"
            )
        for text in self.data.texts:
            if self.rungs and text.unique_tokens and text.unique_tokens <= self.train.context:
                where = f"data.variants.{text.name}." if text.name else "data."
                raise ValueError(
                    f"{where}unique_tokens: {text.unique_tokens} are no more than one window "
                    f"(train.context = {self.train.context}); ask for more"
                )

    def _check_tasks(self):
        for model in self.models.pretrained:
            if model.gpus > 1 and self.evaluate.quantization:
                said = (
                    "is spread over several GPUs, evaluate.quantization is of one; leave out gpus"
                )
                raise ValueError(f"models.pretrained: {model.label} {said}")
        for suite, wanted in self.evaluate.suites.items():
            known = dict.fromkeys(HELD_OUT_TASKS)
            if wanted.folder:
                try:
                    known |= task_index.in_folder(wanted.folder, wanted.names)
                except ValueError as error:
                    raise ValueError(f"evaluate.suites.{suite}.include: {error}") from None
            strange = [name for name in (*wanted.names, *wanted.versions) if name not in known]
            if any(not name.startswith("heldout_") for name in strange):
                known = task_index.of_lm_eval() | known
            for name in strange:
                if name not in known:
                    message = unknown(name, sorted(known), "task")
                    key = "tasks" if name in wanted.names else "versions"
                    raise ValueError(f"evaluate.suites.{suite}.{key}: {message}")
            asked = {name: known[name] for name in wanted.names}
            if said := task_index.changed(wanted.versions, asked):
                raise ValueError(f"evaluate.suites.{suite}.versions: {said}")

    def _check_laws(self):
        for law in self.fit.laws or []:
            need = LAW_NEEDS[law]
            have = self._has(repeated=need.unique > 1)
            if need.flop_budgets and not have.flop_budgets:
                raise ValueError(
                    f"fit.laws: {law} compares sizes at equal compute; give train.budgets as "
                    "{flops: [...]}, or leave the law out"
                )
            if need.scores and not have.scores:
                raise ValueError(
                    f"fit.laws: {law} is of task scores; give evaluate.suites, or leave the law out"
                )
            if need.unique > have.unique:
                raise ValueError(
                    f"fit.laws: {law} needs trainings on at least {need.unique} lengths of unique "
                    f"text, this study has {have.unique}; add data.variants with unique_tokens"
                )
            if any(h < n for h, n in zip(have[:3], need[:3], strict=True)):
                raise ValueError(
                    f"fit.laws: {law} needs at least {need.runs} runs of {need.sizes} sizes and "
                    f"{need.budgets} budgets; this study has {have.runs} of {have.sizes} and "
                    f"{have.budgets}. Add sizes or budgets, or leave the law out"
                )

    def _has(self, repeated: bool) -> Need:
        """What there is for a law to be fitted to: the ladder, or also what repeats its text."""
        own, *others = self.data.texts
        same = [t for t in others if (t.corpus, t.clean) == (own.corpus, own.clean)]
        steps = [
            (text, rung, step)
            for text in [own, *(same if repeated else [])]
            for rung in self.rungs
            for step in rung.steps
            if text.is_on(rung.model.label, step.budget)
        ]
        return Need(
            runs=len(steps) * len(self.train.seeds),
            sizes=len({rung.model.shape.size for _, rung, _ in steps}),
            budgets=len({step.budget for _, _, step in steps}),
            unique=len({text.unique_tokens for text, _, _ in steps}),
            flop_budgets=isinstance(self.train.budgets, FlopBudgets),
            scores=bool(self.evaluate.suites),
        )

    @cached_property
    def budgets(self) -> set[float]:
        """What the ladder's trainings are asked for: tokens, or FLOPs."""
        return {step.budget for rung in self.rungs for step in rung.steps}

    def _check_hold_out(self):
        labels = [rung.model.label for rung in self.rungs]
        references.models("hold_out.models", self.hold_out.models, labels)
        references.budgets("hold_out.budgets", self.hold_out.budgets, self.budgets)
        kept = set(labels) - set(self.hold_out.models)
        if labels and not (kept and self.budgets - set(self.hold_out.budgets)):
            raise ValueError("hold_out: holds out every run; leave some to forecast from")

    def _check_references(self):
        own = self.data.texts[0]
        known = references.Known(
            trained={rung.model.label: rung.model.shape for rung in self.rungs},
            pretrained={
                each.label: each for each in self.models.pretrained if not each.random_weights
            },
            budgets=self.budgets,
            suites=list(self.evaluate.suites),
            context=self.train.context,
            wsd=self.train.schedule == "wsd",
            kinds={kind(path) for path in own.files} if own.corpus.source == "files" else set(),
            ids=self.data.ids,
            tokenizer=self.data.tokenizer and self.data.tokenizer.folder,
        )
        for text in self.data.texts[1:]:
            where = f"data.variants.{text.name}"
            references.models(f"{where}.models", text.models, list(known.trained))
            references.budgets(f"{where}.budgets", text.budgets, known.budgets)
        for name, tuning in self.finetune.items():
            references.finetune(name, tuning, known)
        for name, fusion in self.fuse.items():
            members.check(name, fusion, self.finetune, known)

    @property
    def laws(self) -> list[str]:
        """What is asked for; or, where nothing is, what the study has enough runs for."""
        if self.fit.laws is not None:
            return self.fit.laws
        surface = [law for law in ("chinchilla", "kaplan") if self._allows(law)][:1]
        others = ("isoflop", "data_constrained", "direct", "two_step")
        return surface + [law for law in others if self._allows(law)]

    def _allows(self, law: str) -> bool:
        try:
            self.model_copy(update={"fit": Fit(laws=[law])})._check_laws()
        except ValueError:
            return False
        return True
