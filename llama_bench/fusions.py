"""Every fusion that a configuration asks for, and the trainings that are made for it alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from llama_bench.config import Config
from llama_bench.run import Run
from llama_bench.sections.fuse import Fusion
from llama_bench.sections.models import base_of
from llama_bench.shape import Shape
from llama_bench.specs import OF_OUTPUTS, FuseSpec, Member
from llama_bench.tunings import Model, Models, Tunings

Shapes = tuple[tuple[Shape, ...], int]
"""Of the members of an ensemble, and the number of ids that they share."""


@dataclass(frozen=True)
class Group:
    """Members that become one, by every method of the fusion `name`. `made` are the runs that are
    for it alone, members and controls; `control` is the one that has the compute of all members."""

    name: str
    members: tuple[Model, ...]
    labels: dict
    made: tuple[Run, ...] = ()
    control: Run | None = None


class Fusions:
    """The fusions of one configuration, by the names that it gives them."""

    def __init__(self, config: Config, prepare: Run, models: Models, tunings: Tunings):
        self.config, self.prepare, self.models, self.tunings = config, prepare, models, tunings
        self.ladder = models.trainings

    @cached_property
    def groups(self) -> list[Group]:
        return [
            group for name, asked in self.config.fuse.items() for group in self._groups(name, asked)
        ]

    @property
    def made(self) -> list[Run]:
        """Trainings and fine-tunings that nothing else asks for."""
        return [run for group in self.groups for run in group.made]

    def _groups(self, name: str, asked: Fusion) -> Iterator[Group]:
        if isinstance(asked.members, list):
            yield self._named(name, asked)
            return
        trained = [rung.model.label for rung in self.config.rungs]
        every = self.models.labels if asked.members.finetune else trained
        make = self._tuned if asked.members.finetune else self._trained
        for label in asked.models or every:
            yield make(name, asked, label)

    def _named(self, name: str, asked: Fusion) -> Group:
        """The control of trainings of one shape has their tokens together."""
        members = tuple(self._called(label) for label in asked.members)
        shapes = {member.shape for member in members}
        control = None
        if asked.control and len(shapes) == 1 and None not in shapes:
            runs = [self.ladder.on_ladder(label, None)[0] for label in asked.members]
            tokens = sum(run.spec.tokens for run in runs)
            control = self._for_it(name, self.ladder.beside(runs[0], "control", tokens=tokens))
        return Group(name, members, {}, (control,) if control else (), control)

    def _called(self, label: str) -> Model:
        """One trained elsewhere with what it is said to be fine-tuned from."""
        model, loaded = self.models.called(label), self.config.models.pretrained
        for each in loaded:
            if each.label == label and each.base:
                base = {"base": base_of(each, loaded)}
                return replace(model, member=model.member.model_copy(update=base))
        return model

    def _trained(self, name: str, asked: Fusion, label: str) -> Group:
        """Cooldowns of one trunk, or seeds; the ladder's own training is the first."""
        own = self.ladder.on_ladder(label, asked.budget)[0]
        count = asked.members.cooldowns or asked.members.seeds
        if asked.members.cooldowns:
            more = [self.ladder.beside(own, "member", cooldown=n) for n in range(1, count)]
            cooldowns = count * (own.spec.steps - own.spec.trunk_steps)
            tokens = (own.spec.trunk_steps + cooldowns) * own.spec.batch_tokens
        else:
            seeds = [n for n in range(count + 1) if n != own.spec.seed][: count - 1]
            more = [self.ladder.beside(own, "member", seed=n) for n in seeds]
            tokens = count * own.spec.tokens
        members = tuple(self.models.of(run) for run in (own, *more))
        if asked.control:
            more.append(self.ladder.beside(own, "control", tokens=tokens))
        made = tuple(self._for_it(name, run) for run in more)
        return Group(name, members, members[0].labels, made, made[-1] if asked.control else None)

    def _for_it(self, name: str, run: Run) -> Run:
        return replace(run, labels={**run.labels, "fuse": name})

    def _tuned(self, name: str, asked: Fusion, label: str) -> Group:
        base = self.models.called(label, asked.budget)
        budget = base.labels.get("budget")
        outcomes = [
            self.tunings.outcomes(tuning, label, budget) for tuning in asked.members.finetune
        ]
        members = [
            Model(Member(verb="finetune", run=run.spec.id), (run.path,), base.labels, base.shape)
            for runs in outcomes
            for run in runs
        ]
        made = tuple(self._in_turn(name, outcomes)) if asked.control else ()
        return Group(name, tuple(members), base.labels, made, made[-1] if made else None)

    def _in_turn(self, name: str, outcomes: list[list[Run]]) -> Iterator[Run]:
        """One model of the same base that takes the members' steps together, one fine-tuning after
        the other, each by its first method; with a seed that no member has."""
        before = None
        for runs in outcomes:
            first, count = runs[0], len(runs)
            asked = {
                "steps": count * first.spec.steps,
                "warmup_steps": count * first.spec.warmup_steps,
                "seed": 1 + max(run.spec.seed for run in runs),
            }
            inputs = first.inputs
            if before:
                asked["base"] = Member(verb="finetune", run=before.spec.id)
                inputs = (*inputs[:2], before.path)
            spec = first.spec.model_copy(update=asked)
            kept = {
                key: first.labels[key] for key in ("model", "budget", "seed") if key in first.labels
            }
            labels = {**kept, "fuse": name, "role": "control"}
            before = replace(
                first, spec=spec, inputs=inputs, labels=labels, cost=count * first.cost
            )
            yield before

    @cached_property
    def runs(self) -> list[Run]:
        return [
            self._run(group, method)
            for group in self.groups
            for method in self.config.fuse[group.name].all_methods
        ]

    def _run(self, group: Group, method: str) -> Run:
        asked = self.config.fuse[group.name]
        of_outputs = method in OF_OUTPUTS
        weighting = asked.weighting if of_outputs else None
        growing = asked.growing and method in ("uniform", *OF_OUTPUTS)
        judged = self._judged(group) if method == asked.all_methods[0] else None
        spec = FuseSpec(
            members=tuple(each.member for each in group.members),
            method=method,
            weighting=weighting,
            weights=tuple(asked.weights) if "given" in (method, weighting) else None,
            temperature=asked.temperature if "softmax" in (method, weighting) else None,
            configuration=asked.configuration if method == "mergekit" else None,
            data=self.prepare.spec.id,
            line=asked.line if asked.line and method == _with_line(asked) else None,
            growing=growing or None,
            draws=asked.draws if growing and asked.draws > 1 else None,
            control=Member(verb="finetune", run=judged.spec.id) if judged else None,
            allow_unrelated=(asked.allow_unrelated and not of_outputs) or None,
        )
        inputs = [path for each in group.members for path in each.inputs]
        inputs += [judged.path] if judged else []
        labels = {**group.labels, "fuse": group.name, "method": method}
        labels |= {"control": group.control.spec.id} if group.control else {}
        return Run(spec, (self.prepare.path, *inputs), labels=labels)

    def _judged(self, group: Group) -> Run | None:
        """A control whose loss the fusion measures; a training has told its own."""
        control = group.control
        return control if control and control.spec.verb == "finetune" else None

    @cached_property
    def shapes(self) -> dict[Shapes, dict]:
        """The ensembles of outputs whose cost can be probed, by their members' shapes, with what
        the study calls them."""
        found: dict[Shapes, dict] = {}
        for group in self.groups:
            asked = self.config.fuse[group.name]
            known = [self.models.llama(each) for each in group.members]
            sizes = {pair and pair[1] for pair in known}
            if not {*asked.all_methods} & {*OF_OUTPUTS} or not asked.probe or len(sizes) > 1:
                continue
            if None not in sizes:
                labels = {"fuse": group.name, "members": len(known)}
                named = {k: v for k, v in group.labels.items() if k == "model"}
                shapes = tuple(shape for shape, _ in known), sizes.pop()
                found.setdefault(shapes, {**named, **labels})
        return found


def _with_line(asked: Fusion) -> str | None:
    """The method that measures the line between two members: one is enough."""
    first = ["uniform"] if "uniform" in asked.methods else asked.of_weights
    return next(iter([*first, *({"uniform"} & {*asked.all_methods})]), None)
