"""Fine-tuned models against size: scores before and after, the gain, and what was forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import seaborn as sns

from llama_bench.derive.figures import drawing, labelled_data
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.words import scores, show
from llama_bench.derive.words.finetuned import Outcome
from llama_bench.derive.words.finetunings import RIGHT, Tuning, in_part, tunings
from llama_bench.derive.words.measured import Number
from llama_bench.derive.words.scores import WIDTH

_COLOURS = ("before", "full", "lora", "zero")
_MARKS = {"full": "s", "lora": "^"}


def draw(tables, fits) -> Iterator[Figure]:
    """From all tables of the study: its own ladder has no fine-tuned model."""
    found = tunings(tables)
    for tuning in found:
        for scored in (tuning, in_part(tables, tuning)):
            if scored and any(outcome.after for outcome in scored.whole):
                yield _scores(scored)
        if any(outcome.gain for outcome in tuning.whole):
            yield _gains(tuning)
        yield from labelled_data.draw(tables, tuning)
    yield from _forgetting(found)


def _colours() -> dict:
    return dict(zip(_COLOURS, sns.color_palette("colorblind", len(_COLOURS)), strict=True))


def _points(ax, outcomes: list[Outcome], of: Callable, nudge=1.0, label="", **look) -> None:
    """What `of` gives of outcomes, at their sizes, with error bars; what is not known is left out.
    A line joins those that were trained here: models from elsewhere had other text and tokens. A
    nudge sideways, the same on every figure, keeps bars apart."""
    for origin, joined in (("trained", {}), ("pretrained", {"ls": "none"})):
        points = [(o.params * nudge, of(o)) for o in outcomes if o.origin == origin and of(o)]
        if points:
            _bars(ax, points, label=label, **look | joined)
            label = None


def _bars(ax, known: list[tuple[float, Number]], **look) -> None:
    bars = [WIDTH * (number.error or 0) for _, number in known]
    ax.errorbar(
        [size for size, _ in known],
        [number.value for _, number in known],
        yerr=bars if any(bars) else None,
        elinewidth=1,
        mec="white",
        mew=0.6,
        **look,
    )


def _scores(tuning: Tuning) -> Figure:
    figure, ax = drawing.axes()
    colours, groups = _colours(), tuning.by_method
    first = next(iter(groups.values()))
    before = {"color": colours["before"], "marker": "o", "label": "before"}
    _points(ax, first, lambda o: o.before, 0.97, **before)
    for method, mine in groups.items():
        look = {"color": colours[method], "marker": _MARKS[method], "label": f"after,\n{method}"}
        _points(ax, mine, lambda o: o.after, **look)
    look = {"color": colours["zero"], "marker": "D", "ls": ":", "label": "from zero"}
    _points(ax, first, lambda o: o.zero, 1.03, **look)
    said = [*_plain_baselines(ax, tuning, first)]
    axis = f"{scores.axis_name(tuning.metric)} (higher is better)"
    _finish(figure, ax, tuning, axis, "Model")
    caption = [
        "On the test part, of documents that none of these learned from; every size fine-tuned on "
        "all of the labelled examples. Bars are ±1.96 standard errors over items.",
        *["From zero: the same shape from random weights."] * any(o.zero for o in first),
        *said,
    ]
    title = f"{tuning.name}: {scores.metric_name(tuning.metric)} before and after"
    return Figure(
        tuning.figure(f"scores-{tuning.metric}"), tuning.section, title, " ".join(caption), figure
    )


def _plain_baselines(ax, tuning: Tuning, outcomes: list[Outcome]) -> Iterator[str]:
    """What is had without moving a weight, with what it is; in the main metric alone."""
    if tuning.metric == "acc" and any(o.frozen for o in outcomes):
        look = {"color": drawing.SOFT, "marker": "v", "ls": "--", "label": "frozen\nfeatures"}
        _points(ax, outcomes, lambda o: o.frozen, 0.94, **look)
        few = " (of the items that fit the context)" if any(o.left_out for o in outcomes) else ""
        yield f"Frozen features: a logistic regression on the base’s mean hidden states{few}."
    majority = [o.majority for o in outcomes if o.majority is not None]
    if majority and tuning.metric in RIGHT:
        ax.axhline(majority[0], **drawing.REFERENCE)
        yield (
            "The dashed line is always giving the commonest training answer, "
            f"{show.digits(majority[0], 2)}."
        )


def _finish(figure, ax, tuning: Tuning, axis: str, legend: str) -> None:
    sizes = {o.params for o in tuning.whole}
    look = {"legend": legend, "y_scale": "linear", "x_ticks": sizes}
    drawing.finish(figure, ax, x=drawing.PARAMETERS, y=axis, **look)


def _gains(tuning: Tuning) -> Figure:
    figure, ax = drawing.axes()
    ax.axhline(0, **drawing.REFERENCE)
    colours = _colours()
    for place, (method, mine) in enumerate(tuning.by_method.items()):
        look = {"color": colours[method], "marker": _MARKS[method], "label": method}
        _points(ax, mine, lambda o: o.gain, 1 + 0.03 * place, **look)
    _finish(figure, ax, tuning, f"Gain in {scores.metric_name(tuning.metric)}", "Method")
    caption = (
        "The score after fine-tuning on all of the labelled examples less that of the base, on the "
        "same test items; above the dashed line it is better. Bars are ±1.96 standard errors of "
        "the difference."
    )
    title = f"{tuning.name}: gain against size"
    return Figure(tuning.figure("gain"), tuning.section, title, caption, figure)


def _forgetting(found: list[Tuning]) -> Iterator[Figure]:
    """How far bits per byte of the corpus rose, a line for every task and method."""
    lines = {
        (tuning.name, method): [o for o in mine if o.forgotten is not None]
        for tuning in found
        for method, mine in tuning.by_method.items()
    }
    lines = {key: mine for key, mine in lines.items() if mine}
    if not lines:
        return
    figure, ax = drawing.axes()
    ax.axhline(0, **drawing.REFERENCE)
    names = list(dict.fromkeys(name for name, _ in lines))
    colours = dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))
    for (name, method), mine in lines.items():
        look = {"color": colours[name], "marker": _MARKS[method], "label": f"{name},\n{method}"}
        look["ls"] = "-" if method == "full" else "--"
        _points(ax, mine, lambda o: Number(o.forgotten), **look)
    sizes = {o.params for mine in lines.values() for o in mine}
    look = {"legend": "Fine-tuning", "y_scale": "linear", "x_ticks": sizes}
    y = "Rise of bits per byte of the corpus"
    drawing.finish(figure, ax, x=drawing.PARAMETERS, y=y, **look)
    caption = (
        "Bits per byte of held-out text of the corpus after fine-tuning on all of the labelled "
        "examples less those before it, on the same text; above the dashed line the model has "
        "forgotten."
    )
    yield Figure("forgetting", "finetuning", "What fine-tuning forgets", caption, figure)
