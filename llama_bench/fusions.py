"""Every fusion that a configuration asks for, and the trainings that are made for it alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from llama_bench.config import Config
from llama_bench.run import Run
from llama_bench.sections.fuse import Fusion
from llama_bench.shape import Shape
from llama_bench.specs import OF_OUTPUTS, FuseSpec, Member
from llama_bench.tunings import Model, Models, Tunings


@dataclass(frozen=True)
class Group:
    """Members that become one, by every method of the fusion `name`; `trainings` are made for it:
    members, and the `control` that has their compute."""

    name: str
    members: tuple[Model, ...]
    labels: dict
    trainings: tuple[Run, ...] = ()
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
    def trainings(self) -> list[Run]:
        controls = [group.control for group in self.groups if group.control]
        return [run for group in self.groups for run in group.trainings] + controls

    def _groups(self, name: str, asked: Fusion) -> Iterator[Group]:
        if isinstance(asked.members, list):
            members = tuple(self.models.called(label) for label in asked.members)
            yield Group(name, members, {})
            return
        make = self._tuned if asked.members.finetune else self._trained
        for label in asked.models or [rung.model.label for rung in self.config.rungs]:
            yield make(name, asked, label)

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
        control = self.ladder.beside(own, "control", tokens=tokens) if asked.control else None
        for run in (*more, *((control,) if control else ())):
            run.labels["fuse"] = name
        members = tuple(self.models.of(run) for run in (own, *more))
        return Group(name, members, members[0].labels, tuple(more), control)

    def _tuned(self, name: str, asked: Fusion, label: str) -> Group:
        base = self.models.called(label, asked.budget)
        outcomes = [
            run
            for tuning in asked.members.finetune
            for run in self.tunings.outcomes(tuning, label, base.labels["budget"])
        ]
        members = [
            Model(Member(verb="finetune", run=run.spec.id), (run.path,), base.labels, base.shape)
            for run in outcomes
        ]
        return Group(name, tuple(members), base.labels)

    @cached_property
    def runs(self) -> list[Run]:
        return [
            self._run(group, method)
            for group in self.groups
            for method in self.config.fuse[group.name].methods
        ]

    def _run(self, group: Group, method: str) -> Run:
        asked = self.config.fuse[group.name]
        of_outputs = method in OF_OUTPUTS
        weighting = asked.weighting if of_outputs else None
        first = ["uniform", *asked.of_weights] if "uniform" in asked.methods else asked.of_weights
        with_line = not of_outputs and method == first[0] and asked.line
        spec = FuseSpec(
            members=tuple(each.member for each in group.members),
            method=method,
            weighting=weighting,
            weights=tuple(asked.weights) if "given" in (method, weighting) else None,
            temperature=asked.temperature if "softmax" in (method, weighting) else None,
            configuration=asked.configuration if method == "mergekit" else None,
            data=self.prepare.spec.id,
            line=asked.line if with_line else None,
            growing=(asked.growing and method in ("uniform", *OF_OUTPUTS)) or None,
            allow_unrelated=(asked.allow_unrelated and not of_outputs) or None,
        )
        inputs = [path for each in group.members for path in each.inputs]
        labels = {**group.labels, "fuse": group.name, "method": method}
        labels |= {"control": group.control.spec.id} if group.control else {}
        return Run(spec, (self.prepare.path, *inputs), labels=labels)

    @cached_property
    def shapes(self) -> dict[tuple[Shape, ...], dict]:
        """The ensembles of outputs whose cost can be probed, by their members' shapes, with what
        the study calls them."""
        found = {}
        for group in self.groups:
            shapes = tuple(each.shape for each in group.members)
            asked = self.config.fuse[group.name]
            mixed = set(asked.methods) & set(OF_OUTPUTS)
            if mixed and asked.probe and None not in shapes:
                labels = {"fuse": group.name, "members": len(shapes)}
                named = {k: v for k, v in group.labels.items() if k == "model"}
                found.setdefault(shapes, {**named, **labels})
        return found
