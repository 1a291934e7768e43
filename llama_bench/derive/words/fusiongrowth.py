"""What more members bring, by the law where it could be fitted, and how they were weighed."""

from __future__ import annotations

import math
from typing import Any

from llama_bench.derive.laws import merging
from llama_bench.derive.words import show
from llama_bench.derive.words.fusions import NAMES, Fused
from llama_bench.derive.words.scores import WIDTH

CLOSE = 0.1  # nats per token
LAW_MEANS = (
    f"{merging.FORMULA}: k members, E what no number of members gets below ({merging.PAPER}). "
    "There each point is the mean over many draws of k members that were fine-tuned apart; here it "
    "is the mean over sets of k of these members (all sets, where they are few), and a mixture of "
    "outputs stands beside the mean of weights. All sets are of the same members: intervals say "
    "how well the law fits these, not what other members would give. “Ill-posed” means that the "
    "points leave a parameter open (a curve with quite another E fits them as well): nothing is "
    "to be read off such a fit, and it is not drawn."
)


def signed(value: float, error: float | None = None) -> str:
    """With its sign, and ±1.96 standard errors where one is given."""
    shown = show.plus_minus(value, WIDTH * error) if error else show.digits(value, 2)
    return f"{'+' if value > 0 else ''}{shown}"


def between(values: list[float]) -> str:
    """Signed, from the least to the largest."""
    low, high = signed(min(values)), signed(max(values))
    return low if low == high else f"{low} to {high}"


def words(group: list[Fused]) -> list[str]:
    """Sentences on one fusion of the configuration, at all of its sizes."""
    methods = dict.fromkeys(method for each in group for method in each.growth)
    said = [_members(group, method) for method in methods]
    return [text for text in (*said, _weights(group)) if text]


def _members(group: list[Fused], method: str) -> str:
    """What all members gain over one, what the last one brings, and the law."""
    mine = [each for each in group if method in each.growth]
    grown = [each.growth[method].sort_values("members")["loss"].to_numpy(float) for each in mine]
    whole = [losses[0] - losses[-1] for losses in grown if len(losses) > 1]
    last = [losses[-2] - losses[-1] for losses in grown if len(losses) > 1]
    if not whole:
        return ""
    one = "a member (their mean)" if drawn(mine) else "the first member"
    text = (
        f"All members together ({NAMES[method]}, evenly weighted) gain {between(whole)} nats per "
        f"token over {one} alone, of which the last one brings {between(last)}."
    )
    return f"{text} {_law(mine, method)}".strip()


def drawn(group: list[Fused]) -> bool:
    """Whether points are means over sets of members, not of the first ones alone."""
    counts = [growth["sets"] for each in group for growth in each.growth.values()]
    return any((sets.fillna(1) > 1).any() for sets in counts)


def _law(mine: list[Fused], method: str) -> str:
    laws = [each.laws[method] for each in mine if method in each.laws]
    if not laws or all(law["status"].iloc[0] == "too-few-points" for law in laws):
        return ""  # of two or three members nobody expects a law
    settled = [law for law in laws if law["status"].iloc[0] == "converged"]
    if not settled:
        reasons = dict.fromkeys(law["why"].iloc[0] for law in laws)
        points = max(int(law["points"].iloc[0]) for law in laws)
        return (
            f"The law {merging.FORMULA} is not determined by {show.plural(points, 'point')}: quite "
            f"different curves fit them as well ({'; '.join(reasons)})."
        )
    where = f" at {len(settled)} of {show.plural(len(laws), 'size')}" if len(laws) > 1 else ""
    left = [_left(law, each.growth[method]) for law, each in zip(laws, mine, strict=True)]
    known = [value for value in left if value is not None]
    return (
        f"By the law {merging.FORMULA}, determined{where}, endlessly many members would take away "
        f"{between([-value for value in known]).replace('+', '')} nats per token more than these "
        "did (the intervals stand below)."
    )


def _left(law, growth) -> float | None:
    """Loss with all members less the law's E."""
    if law["status"].iloc[0] != "converged":
        return None
    floor = float(law.set_index("parameter")["value"]["E"])
    return floor - float(growth.loc[growth["members"].idxmax(), "loss"])


def law_rows(found: list[Fused]) -> list[dict[str, Any]]:
    """Every fit of the law: a row each, with the interval of each parameter below its value."""
    rows = []
    for each in found:
        for method, law in each.laws.items():
            if law["status"].iloc[0] == "too-few-points":
                continue
            known = {row["parameter"]: row for _, row in law.dropna(subset=["value"]).iterrows()}
            status, why = law[["status", "why"]].iloc[0]
            row = {"fuse": each.fuse, "model": each.shown, "method": NAMES[method]}
            row |= {"status": status, "why": "" if show.absent(why) else why}
            row |= {"points": str(int(law["points"].iloc[0]))}
            row["cells"] = [_parameter(known.get(name)) for name in ("E", "A", "b")]
            rows.append(row)
    return rows


def _parameter(row) -> tuple[str, str]:
    if row is None:
        return show.NOTHING, ""
    ends = row["low"], row["high"]
    return show.digits(row["value"], 4), "" if show.absent(ends[0]) else show.interval(*ends)


def _weights(group: list[Fused]) -> str:
    """The weights that softmax gave, always beside its temperature."""
    soft = [
        (each.weighed[outcome.row["run"]], float(outcome.row["temperature"]))
        for each in group
        for outcome in each.fused
        if "softmax" in (outcome.row.get("method"), outcome.row.get("weighting"))
    ]
    if not soft:
        return ""
    weights = [float(weight) for members, _ in soft for weight in members["weight"]]
    losses = [members["choosing_loss"].fillna(members["loss"]) for members, _ in soft]
    apart, temperature = max(float(loss.max() - loss.min()) for loss in losses), soft[0][1]
    ratio = math.exp(CLOSE / temperature)
    close = "nearly equal weights" if ratio < 1.2 else "weights that differ"
    return (
        f"Softmax at T = {temperature:g} gave weights of {show.digits(min(weights))} to "
        f"{show.digits(max(weights))} to members whose losses lie within {show.digits(apart, 2)} "
        f"nat of each other. At this temperature members within {CLOSE} nat get {close}: by a "
        f"factor of {show.digits(ratio)} at most."
    )


def member_rows(found: list[Fused]) -> list[dict[str, Any]]:
    """Every member: its loss, and its weight by each way of fusing."""
    rows = []
    for each in found:
        ways = {outcome.row["run"]: outcome.name for outcome in each.fused}
        for place, (_, member) in enumerate(each.members.iterrows()):
            weights = [
                f"{name} {show.digits(each.weighed[run]['weight'].iloc[place])}"
                for run, name in ways.items()
                if not show.absent(each.weighed[run]["weight"].iloc[place])
            ]
            about = {"fuse": each.fuse, "model": each.shown, "member": member["member"]}
            loss = show.digits(member["loss"], 4)
            rows.append(about | {"loss": loss, "weights": "; ".join(weights)})
    return rows
