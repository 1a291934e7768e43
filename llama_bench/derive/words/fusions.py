"""What each fusion gave, and beside it its controls: the best single member, the uniform average,
the ensemble of outputs, and one model trained with the compute of all members.

A gain is the best member's loss less that of the other on the same held-out windows, nats per
token: above zero the fusion is better. Its standard error is paired over these windows. So it holds
how far the text decides, and not how far two trainings differ by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llama_bench.derive.words import key_table, show
from llama_bench.derive.words.scores import WIDTH
from llama_bench.specs import OF_OUTPUTS

CONTROL = "one model, summed compute"
NAMES = {
    "uniform": "uniform average",
    "softmax": "softmax average",
    "given": "given weights",
    "greedy": "greedy soup",
    "slerp": "slerp",
    "mergekit": "mergekit",
    "mixture": "ensemble, mixture",
    "product": "ensemble, product",
}
_CELL = ["fuse", "model", "budget", "seed"]
_NUMBERS = ["loss", "gain", "gain_standard_error"]


@dataclass(frozen=True)
class Outcome:
    """One way of making one model, against the best member: `error` is the standard error of
    `gain`, `row` of the table `fusions`, of `trainings` for a trained control, None for another."""

    name: str
    loss: float
    gain: float
    error: float | None
    row: Any

    @property
    def of_outputs(self) -> bool:
        return self.name in (NAMES[method] for method in OF_OUTPUTS)

    @property
    def verdict(self) -> str:
        """Against the best member, by 1.96 standard errors."""
        if self.error is None or abs(self.gain) <= WIDTH * self.error:
            return "not to be told apart"
        return "better" if self.gain > 0 else "worse"


@dataclass(frozen=True)
class Fused:
    """One fusion of one set of members. `params` is the size of one member, where they share it;
    `weighed` are the members by run, for each weighs them in its own way; `growth` and `laws` go by
    method; `trained` are the trainings among the members."""

    fuse: str
    model: str | None
    params: float | None
    budget: float | None
    members: Any
    trained: Any
    outcomes: list[Outcome]
    line: Any
    weighed: dict[str, Any]
    growth: dict[str, Any]
    laws: dict[str, Any]

    @property
    def shown(self) -> str:
        if self.model or self.one_shape:
            return self.model or "models of one size"
        return "models of several sizes" if len(self.trained) == self.count else "several models"

    @property
    def fused(self) -> list[Outcome]:
        """The outcomes but for the control."""
        return [outcome for outcome in self.outcomes if outcome.name != CONTROL]

    @property
    def related(self) -> bool | None:
        known = [outcome.row["related"] for outcome in self.fused]
        known = [bool(value) for value in known if not show.absent(value)]
        return known[0] if known else None

    @property
    def best_loss(self) -> float:
        return float(self.members["loss"].min())

    @property
    def worst_loss(self) -> float:
        return float(self.members["loss"].max())

    @property
    def count(self) -> int:
        return len(self.members)

    @property
    def tuned(self) -> bool:
        """Whether the members are fine-tunings."""
        return bool((self.members["made_by"] == "finetune").all())

    @property
    def one_of(self) -> str | None:
        """The model that stands for each member, where all are of one shape."""
        shapes = self.trained["parameters_all"].nunique()
        alike = len(self.trained) == self.count and shapes == 1
        return self.model or (self.trained["model"].iloc[0] if alike else None)

    @property
    def one_shape(self) -> bool:
        """Whether they are known to have one, which averaging takes."""
        return self.one_of is not None or self.average is not None

    def of(self, *names: str) -> Outcome | None:
        """The first outcome of one of these names."""
        return next((each for name in names for each in self.outcomes if each.name == name), None)

    @property
    def average(self) -> Outcome | None:
        """Of weights: the uniform one, else the first that there is."""
        others = [outcome.name for outcome in self.fused if not outcome.of_outputs]
        return self.of(NAMES["uniform"], *others)

    @property
    def ensemble(self) -> Outcome | None:
        return self.of(*(NAMES[method] for method in OF_OUTPUTS))

    @property
    def barrier(self) -> float | None:
        found = [outcome.row["barrier"] for outcome in self.fused]
        return next((float(value) for value in found if not show.absent(value)), None)


def found(tables) -> list[Fused]:
    """Every fusion that has a loss, by name in the study's order and size."""
    fusions = tables["fusions"].dropna(subset=["loss", "best_loss"])
    fusions = fusions.assign(gain=fusions["gain"].fillna(fusions["best_loss"] - fusions["loss"]))
    fusions = fusions.sort_values("method", key=_in_order, kind="stable")
    fusions = fusions.drop_duplicates([*_CELL, "method"])
    groups = fusions.groupby(_CELL, dropna=False, sort=False)
    made = [_fused(tables, key, rows) for key, rows in groups]
    order = {name: place for place, name in enumerate(tables["fusions"]["fuse"].unique())}
    return sorted(made, key=lambda each: (order[each.fuse], each.params or math.inf))


def _in_order(methods):
    """Ways of fusing in the order of NAMES."""
    return methods.map(list(NAMES).index)


def by_name(fusions: list[Fused]) -> dict[str, list[Fused]]:
    """Under each name of the configuration its fusions, smallest first."""
    groups: dict[str, list[Fused]] = {}
    for each in fusions:
        groups.setdefault(each.fuse, []).append(each)
    return groups


def _fused(tables, key, rows) -> Fused:
    fuse, model, budget, _ = key
    model = None if show.absent(model) else model
    members = tables["fusion_members"]
    weighed = {run: members[members["run"] == run] for run in rows["run"]}
    members = weighed[rows["run"].iloc[0]]
    trainings = tables["trainings"].drop_duplicates("run").set_index("run")
    trained = trainings.loc[[run for run in members["member"] if run in trainings.index]]
    outcomes = [
        Outcome(NAMES[row["method"]], *map(_known, row[_NUMBERS]), row)
        for _, row in rows.iterrows()
    ]
    control = _control(rows, trainings, members, trained)
    lines = tables["fusion_lines"]
    mine = {name: _of_runs(tables[name], rows) for name in ("fusion_growth", "merging_laws")}
    return Fused(
        fuse=fuse,
        model=model,
        params=_params(tables, model, rows),
        budget=_known(budget),
        members=members,
        trained=trained,
        outcomes=outcomes + ([control] if control else []),
        line=_line(lines[lines["run"].isin(rows["run"])]),
        weighed=weighed,
        growth=mine["fusion_growth"],
        laws=mine["merging_laws"],
    )


def _line(points):
    """Of the first run that measured one; nothing where a model on it gives no number."""
    points = points[points["run"] == points["run"].iloc[0]] if len(points) else points
    points = points.sort_values("share")
    return points if points["loss"].notna().all() else points.iloc[:0]


def _of_runs(table, rows) -> dict[str, Any]:
    """By method, in the order of NAMES; without points that have no loss."""
    mine = table[table["run"].isin(rows["run"])].sort_values("method", key=_in_order, kind="stable")
    mine = mine.dropna(subset=["loss"]) if "loss" in mine else mine
    return dict(iter(mine.groupby("method", sort=False)))


def _known(value) -> float | None:
    return None if show.absent(value) else float(value)


def _params(tables, model: str | None, rows) -> float | None:
    """Of one member; a fusion of weights has the members' own shape."""
    if model is None:
        return None
    of_weights = rows.loc[~rows["method"].isin(OF_OUTPUTS), "parameters_without_embeddings"]
    of_weights = of_weights.dropna()
    return float(of_weights.iloc[0]) if len(of_weights) else key_table.size_of(tables, model)


def _control(rows, trainings, members, trained) -> Outcome | None:
    """The model with the compute of all. A fine-tuning was judged by the fusion, paired with the
    best member; a training's own loss is held against that member's as two independent ones, whose
    error is too wide."""
    judged = rows.dropna(subset=["control_loss"])
    if len(judged):
        row = judged.iloc[0]
        told = [row[f"control_{name}"] for name in _NUMBERS]
        return Outcome(CONTROL, *map(_known, told), None)
    run = next((run for run in rows["control"] if run in trainings.index), None)
    if run is None or show.absent(trainings.loc[run, "loss"]):
        return None
    control = trainings.loc[run]
    best = members.loc[members["loss"].idxmin()]
    its = [control["loss_standard_error"]]
    its.append(trained["loss_standard_error"].get(best["member"]))
    error = None if any(map(show.absent, its)) else math.hypot(*its)
    loss = float(control["loss"])
    return Outcome(CONTROL, loss, float(best["loss"]) - loss, error, control)
