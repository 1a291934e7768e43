"""Models fused, against their controls: gains by way of fusing and by size, the straight line
between two members, and what more members bring."""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import ticker

from llama_bench.derive.figures import drawing, fusion_growth
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.words import fusions, fusiontext, show
from llama_bench.derive.words.fusions import CONTROL, Fused
from llama_bench.derive.words.scores import WIDTH

GAIN = "Gain over the best member (nats per token)"
ROOM = 0.5  # of a row for the points of all sizes
FAR = 10.0  # times the smallest quarter: from there on an axis is logarithmic away from zero


def draw(tables, fits) -> Iterator[Figure]:
    """From all tables of the study: members and controls stand beside its ladder."""
    found = fusions.found(tables)
    groups = fusions.by_name(found)
    for name, group in groups.items():
        yield _gains(name, group)
    lined = {name: [each for each in group if len(each.line)] for name, group in groups.items()}
    lined = {name: group for name, group in lined.items() if group}
    if lined:
        yield _lines(lined)
    for name, group in groups.items():
        yield from fusion_growth.draw(name, [each for each in group if each.growth])
    for key, shown in (("average", "the mean of weights"), ("ensemble", "an ensemble of outputs")):
        yield from _against_size(groups, key, shown)


def _gains(name: str, group: list[Fused]) -> Figure:
    ways = list(dict.fromkeys(outcome.name for each in group for outcome in each.outcomes))
    ways.sort(key=lambda way: way == CONTROL)
    colours, shapes = fusion_growth.looks(group)
    figure, ax = drawing.axes()
    ax.axvline(0, **drawing.REFERENCE)
    step = ROOM / max(len(group) - 1, 1)
    for place, each in enumerate(group):
        look = {"color": colours[each.shown], "marker": shapes[each.shown]}
        nudge = place * step - ROOM / 2 if len(group) > 1 else 0.0
        for outcome in each.outcomes:
            row = ways.index(outcome.name) + nudge
            _point(ax, outcome.gain, row, outcome.error, look, along="x")
        ax.plot([], [], ls="none", **look, label=each.shown)
    drawing.finish(figure, ax, x=GAIN, y="", legend="Model", x_scale="linear", y_scale="linear")
    note = _far(ax, "x", [outcome.gain for each in group for outcome in each.outcomes])
    ax.set_yticks(range(len(ways)), [way.replace(", ", ",\n") for way in ways])
    ax.set_ylim(len(ways) - 0.5, -0.5)
    ax.grid(False, axis="y")
    sns.despine(ax=ax, left=True)
    caption = (
        f"{group[0].count} members {_kin(group)}. Right of the dashed line the loss is below that "
        f"of the best single member.{_bars(group)}{_summed(group)}{note}"
    )
    title = f"Fusing {name}: gain by way of fusing"
    return Figure(f"fusion-gain-{fusion_growth.safe(name)}", "fusion", title, caption, figure)


def _point(ax, x: float, y: float, error: float | None, look, along: str) -> None:
    bars = {f"{along}err": WIDTH * error} if error else {}
    shown = {"ls": "none", "elinewidth": 1, "ms": 5, "mec": "white", "mew": 0.6}
    ax.errorbar(x, y, **bars, **shown, **look)


def _kin(group: list[Fused]) -> str:
    return {True: "with a common ancestor", False: "without a common ancestor"}.get(
        group[0].related, "of unknown kin"
    )


def _bars(group: list[Fused]) -> str:
    known = [outcome.error is not None for each in group for outcome in each.outcomes]
    if not any(known):
        return ""
    said = f" Bars are ±{WIDTH} standard errors over held-out windows, paired with the best member"
    controls = [control for each in group if (control := each.of(CONTROL))]
    unpaired = any(control.row is not None for control in controls)
    return f"{said}{' (not so of the model with the summed compute)' if unpaired else ''}."


def _summed(group: list[Fused]) -> str:
    has_one = any(each.of(CONTROL) for each in group)
    return f" {fusiontext.summed(group)}" if has_one else ""


def _far(ax, along: str, values: list[float]) -> str:
    """Where some values dwarf the others, the axis is linear about zero and logarithmic beyond;
    the sentence that says so."""
    sizes = np.abs(np.asarray(values, float))
    small = float(np.quantile(sizes, 0.25))
    if small == 0 or sizes.max() < max(FAR * small, fusiontext.DESTROYED):
        return ""
    linear = 10.0 ** round(math.log10(small))
    axis = getattr(ax, f"{along}axis")
    getattr(ax, f"set_{along}scale")("symlog", linthresh=linear, linscale=1.5)
    ax.autoscale(axis=along)
    decades = [linear * 10.0**power for power in range(1, 9) if linear * 10.0**power < sizes.max()]
    low, high = min(values), max(values)
    marks = [0.0, *(sign * mark for sign in (-1, 1) for mark in (linear, *decades))]
    room = linear * 2
    kept = sorted(mark for mark in marks if low - room <= mark <= high + room)
    axis.set_major_locator(ticker.FixedLocator(kept))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: show.digits(value, 1)))
    return f" The axis is linear up to {show.digits(linear, 1)} and logarithmic beyond."


def _lines(groups: dict[str, list[Fused]]) -> Figure:
    """Related members first; one scale for all, or the comparison would be lost."""
    order = sorted(groups, key=lambda name: groups[name][0].related is False)
    sized = sorted((e for g in groups.values() for e in g), key=lambda e: e.params or math.inf)
    colours, shapes = fusion_growth.looks(sized)
    size = (drawing.SIZE[0] * max(1.0, len(order) / 3), drawing.SIZE[1])
    figure, panels = plt.subplots(1, len(order), figsize=size, sharey=True, squeeze=False)
    for ax, name in zip(panels[0], order, strict=True):
        for each in groups[name]:
            share, loss = (each.line[column].to_numpy(float) for column in ("share", "loss"))
            straight = loss[0] + (loss[-1] - loss[0]) * (share - share[0]) / (share[-1] - share[0])
            look = {"color": colours[each.shown], "mec": "white", "mew": 0.6}
            ax.plot(share, loss - straight, marker=shapes[each.shown], **look)
        kin = {True: "related", False: "unrelated"}.get(groups[name][0].related, "kin unknown")
        ax.set_title(f"{name}\n({kin})")
    for model in colours:
        look = {"color": colours[model], "marker": shapes[model], "mec": "white", "mew": 0.6}
        panels[0][-1].plot([], [], **look, label=model)
    for ax in panels[0][:-1]:
        drawing.finish(figure, ax, x="", y="", x_scale="linear", y_scale="linear")
    scales = {"x_scale": "linear", "y_scale": "linear"}
    drawing.finish(figure, panels[0][-1], x="", y="", legend="Model", **scales)
    for ax in panels[0]:
        ax.xaxis.set_major_locator(ticker.FixedLocator((0, 0.5, 1)))
    figure.supxlabel("Share of the second member", fontsize=10)
    panels[0][0].set_ylabel("Loss above the ends’ (nats per token)")
    caption = (
        "Held-out loss of (1 − share) × first + share × second member’s weights, less the straight "
        "line between the losses of the two; the highest point is the barrier. All panels have one "
        "scale."
    )
    return Figure("fusion-lines", "fusion", "Between two members’ weights", caption, figure)


def _against_size(groups: dict[str, list[Fused]], key: str, shown: str) -> Iterator[Figure]:
    """One line a fusion, of those with several sizes."""
    kept = {
        name: [(each, getattr(each, key)) for each in group if each.params and getattr(each, key)]
        for name, group in groups.items()
    }
    kept = {n: pairs for n, pairs in kept.items() if len({e.params for e, _ in pairs}) > 1}
    if not kept:
        return
    colours = dict(zip(kept, sns.color_palette("colorblind", len(kept)), strict=True))
    shapes = drawing.marks(list(kept))
    figure, ax = drawing.axes()
    ax.axhline(0, **drawing.REFERENCE)
    for name, pairs in kept.items():
        look = {"color": colours[name], "marker": shapes[name]}
        ax.plot([e.params for e, _ in pairs], [o.gain for _, o in pairs], color=colours[name], lw=1)
        for each, outcome in pairs:
            _point(ax, each.params, outcome.gain, outcome.error, look, along="y")
        ax.plot([], [], **look, label=name)
    sizes = {each.params for pairs in kept.values() for each, _ in pairs}
    axes = {"x": drawing.PARAMETERS, "y": GAIN.replace(" (", "\n(")}
    drawing.finish(figure, ax, **axes, legend="Fusion", y_scale="linear", x_ticks=sizes)
    note = _far(ax, "y", [outcome.gain for pairs in kept.values() for _, outcome in pairs])
    caption = (
        f"What {shown} gains over the best single member, by the size of one member; above the "
        f"dashed line it is better. Bars are ±{WIDTH} standard errors over held-out windows, "
        f"paired.{note}"
    )
    yield Figure(f"fusion-size-{key}", "fusion", f"Gain of {shown} against size", caption, figure)
