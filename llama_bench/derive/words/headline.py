"""What the runs say in a few sentences: what more parameters and more tokens bought and cost.

Every figure is a mean slope over the range that was measured, never beyond it: least squares of
the loss (or of the log of a speed) on the decimal log of the size, each group of runs (one budget,
or one size) with its own level. The interval is that regression's 95 % t interval, so it carries
noise and the bend of the curve alike. Where too few runs are left for one, a change counts only if
it is more than what seeds differ by. A decade is spoken of only where a decade was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llama_bench.derive.words import show
from llama_bench.derive.words.laddertext import seed_noise
from llama_bench.derive.words.slopes import Slope, slope
from llama_bench.derive.words.ways import busy, cell_name, one_reader, timed

_INTERVAL = "95 % interval "
# a ratio whose interval holds 1 and is wider than this is no number
TELLING_DECADES = 1.0


@dataclass(frozen=True)
class Finding:
    """One measured statement: a figure with its interval, a sentence, and how it was computed."""

    figure: str
    unit: str
    label: str
    interval: str
    sentence: str
    how: str


def findings(tables) -> list[Finding]:
    """What the study found, in the order it is told; empty where nothing can be compared."""
    ladder = tables["ladder"]
    found = [_size(ladder), _tokens(ladder)] if len(ladder) else [_loaded(tables["scores"])]
    found.append(_decode(timed(tables["cells"])))
    return [finding for finding in found if finding]


def sentence(found: list[Finding]) -> str:
    """The headline: the findings' sentences as one."""
    text = "; ".join(finding.sentence for finding in found)
    first, said, rest = text.partition(_INTERVAL)
    text = first + said + rest.replace(_INTERVAL, "")
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _size(ladder) -> Finding | None:
    """At the largest budget that several sizes share."""
    means = ladder.groupby(["token_budget", "params"], as_index=False)["loss"].mean()
    sizes = means.groupby("token_budget")["params"].nunique()
    shared = sizes[sizes >= max(2, min(4, sizes.max() if len(sizes) else 2))]
    if not len(shared):
        return None
    budget = shared.index.max()
    rows = means[means["token_budget"] == budget]
    fitted = slope(rows["params"], rows["loss"], rows["token_budget"])
    place = f"at {show.short(budget)} training tokens"
    how = (
        f"Mean slope of the held-out loss over log parameters (without embeddings), "
        f"{show.plural(len(rows), 'size')} from {show.short(fitted.low)} to "
        f"{show.short(fitted.high)}, {place}."
    )
    return _loss_finding(fitted, "parameters", place, how, seed_noise(ladder))


def _tokens(ladder) -> Finding | None:
    """Over all sizes that saw several budgets, each size with its own level."""
    means = ladder.groupby(["params", "tokens"], as_index=False)["loss"].mean()
    counts = means.groupby("params")["tokens"].transform("nunique")
    rows = means[counts >= 2]
    if not len(rows):
        return None
    fitted = slope(rows["tokens"], rows["loss"], rows["params"])
    sizes = rows["params"].nunique()
    place = (
        f"averaged over {sizes} sizes"
        if sizes > 1
        else f"at {show.short(rows['params'].iloc[0])} parameters"
    )
    how = (
        f"Mean slope of the held-out loss over log training tokens, {show.plural(len(rows), 'run')}"
        f" from {show.short(fitted.low)} to {show.short(fitted.high)} tokens, {place}"
        f"{', each with its own level' if sizes > 1 else ''}."
    )
    return _loss_finding(fitted, "training tokens", place, how, seed_noise(ladder))


def _loss_finding(fitted: Slope, what: str, place: str, how: str, noise) -> Finding:
    """`noise` is what seeds differ by (laddertext.seed_noise)."""
    if fitted.bounds is None and (noise is None or abs(fitted.change) / fitted.start < noise[0]):
        return _untold(fitted, what, place, how, noise)
    change = fitted.change
    verb = "lowered" if change < 0 else "raised"
    share = f"{show.percent(abs(change) / fitted.start)}"
    sign = -1 if change < 0 else 1
    between = _between(fitted, lambda bound: sign * bound)
    crosses = fitted.bounds is not None and fitted.bounds[0] * fitted.bounds[1] <= 0
    unclear = ", which is not clear of zero" if crosses else ""
    return Finding(
        figure=f"{'−' if change < 0 else '+'}{show.digits(abs(change), 2)}",
        unit="nats per token",
        label=_label(fitted, what, place),
        interval=f"{share} of the loss; {between}",
        sentence=f"{_times(fitted)} the {what} {verb} the loss by {share}, "
        f"{show.digits(abs(change), 2)} nats per token ({between}), {place}{unclear}",
        how=f"{how} The share is of the fitted loss where that step begins.",
    )


def _untold(fitted: Slope, what: str, place: str, how: str, noise) -> Finding:
    """A change of the loss without an interval that seeds alone, as far as is known, may make."""
    share = show.percent(abs(fitted.change) / fitted.start)
    fell = f"a slope of {share} {'down' if fitted.change < 0 else 'up'}"
    against = "too few runs for an interval, and no seeds"
    if noise is not None:
        against = f"seeds alone differ by {show.percent(noise[0])}"
    return Finding(
        figure=show.NOTHING,
        unit="",
        label=_label(fitted, what, place),
        interval=f"not determined by these runs: {fell}; {against}",
        sentence=f"whether {_times(fitted)} the {what} lowered the loss cannot be told from these "
        f"runs ({fell}; {against}), {place}",
        how=how,
    )


def _label(fitted: Slope, what: str, place: str) -> str:
    label = f"{_times(fitted)} the {what}, {place}"
    return f"{label[0].upper()}{label[1:]}"


def _loaded(scores) -> Finding | None:
    """Without trainings: the smallest and the largest model on the first task in bits per byte."""
    rows = scores[(scores["metric"] == "bits_per_byte") & scores["value"].notna()]
    rows = rows[rows["task"] == rows["task"].min()].sort_values("parameters_without_embeddings")
    if rows["parameters_without_embeddings"].nunique() < 2:
        return None
    small, large = rows.iloc[0], rows.iloc[-1]
    gain = small["value"] - large["value"]
    reach = 1.96 * math.hypot(small["standard_error"], large["standard_error"])
    sizes = [show.short(row["parameters_without_embeddings"]) for row in (small, large)]
    between = f"{_INTERVAL}{show.interval(gain - reach, gain + reach)}"
    between = "no standard error is known" if math.isnan(reach) else between
    needs = f"needs {show.digits(abs(gain), 2)} bits per byte {'less' if gain > 0 else 'more'}"
    return Finding(
        figure=f"{'−' if gain > 0 else '+'}{show.digits(abs(gain), 2)}",
        unit="bits per byte",
        label=f"{large['model']} ({sizes[1]} parameters) against {small['model']} ({sizes[0]})",
        interval=f"{large['task']}; {between}",
        sentence=f"{large['model']} ({sizes[1]} parameters) {needs} on unseen text than "
        f"{small['model']} ({sizes[0]}; {between})",
        how=f"Difference of {large['task']} between the smallest and the largest model; interval "
        "from both standard errors, as if the items were not the same.",
    )


def _decode(cells) -> Finding | None:
    """At batch 1 and the longest context: the case of one reader waiting for a text."""
    rows = one_reader(cells)
    origin = "trained" if (rows["origin"] == "trained").any() else "pretrained"
    rows = rows[rows["origin"] == origin]
    medians = rows.groupby("parameters_without_embeddings")["tokens_per_second"].median()
    if len(medians) < 2:
        return None
    fitted = slope(medians.index, -np.log10(medians), np.zeros(len(medians)))
    cell = cell_name(rows)
    times = 10**fitted.change
    slower = "slower" if times >= 1 else "faster"
    ratio = show.digits(times if times >= 1 else 1 / times, 2)
    said = _between(fitted, lambda bound: 10 ** (bound if times >= 1 else -bound))
    sentence = f"{_times(fitted)} the parameters made decoding {ratio} times {slower} ({said})"
    figure, bounds = f"{ratio} ×", fitted.bounds
    if bounds is None or bounds[0] < 0 < bounds[1]:
        if bounds is None or bounds[1] - bounds[0] > TELLING_DECADES:  # two sizes give no interval
            figure, slower, said = show.NOTHING, "", "not determined by these runs"
        of = f"{ratio} times {slower}; {said}" if slower else said
        sentence = (
            f"whether {_times(fitted)} the parameters slowed decoding down cannot be told from "
            f"these probes ({of})"
        )
    if busy(rows):
        sentence += ", on a machine that was busy with other work while it was timed"
        said += "; measured on a busy machine"
    return Finding(
        figure=figure,
        unit=slower,
        label=f"Decoding, for {_times(fitted)} the parameters",
        interval=f"{cell}; {said}",
        sentence=sentence,
        how="Mean slope of log tokens per second (of the median of the rounds’ medians) over log "
        f"parameters (without embeddings), {show.plural(len(medians), 'size')} from "
        f"{show.short(fitted.low)} to {show.short(fitted.high)}, {cell}.",
    )


def _between(fitted: Slope, shown) -> str:
    """The interval as text, lowest first."""
    if fitted.bounds is None:
        return "too few runs for an interval"
    return f"{_INTERVAL}{show.interval(*sorted(map(shown, fitted.bounds)))}"


def _times(fitted: Slope) -> str:
    if fitted.factor == 10:
        return "ten times"
    spoken = {2: "twice", 3: "three times", 4: "four times", 5: "five times", 8: "eight times"}
    near = round(fitted.factor)
    # steps make budgets a little uneven: 799,744 / 199,680 is still four times
    if near in spoken and abs(fitted.factor / near - 1) < 0.01:
        return spoken[near]
    return f"{show.digits(fitted.factor, 2)} times"
