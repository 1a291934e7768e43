"""What the section on fusion says in words: who won at how many sizes, what the line between two
members shows, whether size changes it, and what cannot be told."""

from __future__ import annotations

import math

from llama_bench.derive.words import fusiongrowth, headline, show
from llama_bench.derive.words.fusions import CONTROL, NAMES, Fused, Outcome
from llama_bench.derive.words.scores import WIDTH

DESTROYED = 1.0  # nats per token above the worst member
COMMON = (
    "Several models made into one: the mean of their weights, or of what they predict. A gain is "
    "the best single member’s loss less that of the fusion, nats per token on the same held-out "
    f"windows; above zero the fusion is better. “Better” and “worse” are beyond {WIDTH} standard "
    "errors over these windows, paired; how far two trainings differ by chance is not in them, and "
    "the best of several members is best partly by chance."
)
_CONTROL_ERROR = (
    "The error of a trained model with the summed compute is that of two independent losses, which "
    "is too wide: both are of the same windows, but a training records no loss window by window to "
    "pair them by."
)


def words(fusions: list[Fused]) -> list[str]:
    """What holds for the whole section."""
    controls = [control for each in fusions if (control := each.of(CONTROL))]
    measured = any(control.row is not None for control in controls)
    return [COMMON, *([_CONTROL_ERROR] if measured else [])]


def of_group(group: list[Fused]) -> list[str]:
    """Sentences on one fusion of the configuration, at all of its sizes."""
    said = [
        _asked(group),
        _outcomes(group),
        _against_control(group),
        *_missing(group),
        _line(group),
        _average(group),
        *fusiongrowth.words(group),
        _against_size(group),
        _chosen(group),
    ]
    return [text for text in said if text]


def _asked(group: list[Fused]) -> str:
    counts = sorted({each.count for each in group})
    members = show.listed(counts)
    kind = {True: "with", False: "without", None: "of which it is not known whether they have"}
    sizes = f", at {show.plural(len(group), 'size')}" if len(group) > 1 else ""
    return f"{members} members {kind[group[0].related]} a common ancestor{sizes}."


def _names(group: list[Fused]) -> list[str]:
    return list(dict.fromkeys(outcome.name for each in group for outcome in each.outcomes))


def _outcomes(group: list[Fused]) -> str:
    """Each way against the best member: at how many sizes better, worse, not to be told."""
    parts = [_counted(name, group) for name in _names(group)]
    return f"Against the best member: {'; '.join(parts)}."


def _counted(name: str, group: list[Fused]) -> str:
    mine = [outcome for each in group if (outcome := each.of(name))]
    gains = [outcome.gain for outcome in mine]
    verdicts = [outcome.verdict for outcome in mine]
    return f"{name} {at(verdicts)} ({fusiongrowth.between(gains)})"


def at(verdicts: list[str]) -> str:
    """How often each verdict fell, where there are several sizes."""
    if len(verdicts) == 1:
        return verdicts[0]
    counts = [(verdict, verdicts.count(verdict)) for verdict in sorted(set(verdicts))]
    return show.listed(f"{verdict} at {count} of {len(verdicts)}" for verdict, count in counts)


def _against_control(group: list[Fused]) -> str:
    """Whether the best fusion reaches the model that had the compute of all members."""
    both = [(each, each.of(CONTROL)) for each in group if each.of(CONTROL)]
    if not both:
        return ""
    verdicts = [_held_against(_best(each), control) for each, control in both]
    below = [control.loss - _best(each).loss for each, control in both]
    return (
        "Held against one model trained with the summed compute, the best fusion is "
        f"{at(verdicts)} (its gain less that one’s: {fusiongrowth.between(below)} nats per "
        f"token). {summed(group)}"
    )


def summed(group: list[Fused]) -> str:
    """What the model with the summed compute is."""
    if not group[0].tuned:
        return (
            "The model with the summed compute is trained alone, on as many tokens as the members "
            "together, a trunk that they share counted once."
        )
    return (
        "The model with the summed compute is fine-tuned from the same base with the steps of all "
        "members together, one fine-tuning after the other where they differ; the base’s own "
        "training is shared, and not counted."
    )


def _best(each: Fused) -> Outcome:
    return min(each.fused, key=lambda outcome: outcome.loss)


def _held_against(mine: Outcome, control: Outcome) -> str:
    errors = (mine.error, control.error)
    difference = control.loss - mine.loss
    if None in errors or abs(difference) <= WIDTH * math.hypot(*errors):
        return "not to be told from it"
    return "better" if difference > 0 else "worse"


def _missing(group: list[Fused]) -> list[str]:
    """Controls that there cannot be, then those that the study did not ask for or that gave no
    number."""
    wanted = {
        "the uniform average": lambda each: each.of(NAMES["uniform"]),
        "an ensemble of outputs": lambda each: each.ensemble,
        "one model with the summed compute": lambda each: each.of(CONTROL),
    }
    lacking = [name for name, has in wanted.items() if not any(map(has, group))]
    absent = {name: why for name, why in _impossible(group).items() if name in lacking}
    lacking = [name for name in lacking if name not in absent]
    said = [f"Not measured, and so not compared: {show.listed(lacking)}."] if lacking else []
    return [
        *(f"There is no {name.split(' ', 1)[1]}: {why}." for name, why in absent.items()),
        *said,
    ]


def _impossible(group: list[Fused]) -> dict[str, str]:
    """Why a control cannot be, by its name."""
    found = {}
    if not all(each.one_shape for each in group):
        found["the uniform average"] = "weights are averaged of models of one shape"
    elif group[0].related is False:
        found["the uniform average"] = (
            "the members have no common ancestor, and the study does not ask for the average of "
            "such (allow_unrelated)"
        )
    alike = all(
        each.one_shape and (each.tuned or len(each.trained) == each.count) for each in group
    )
    if not alike:
        found["one model with the summed compute"] = (
            "that takes members of one shape that were trained here; what they are held against is "
            "the best of them"
        )
    return found


def _line(group: list[Fused]) -> str:
    barriers = [each.barrier for each in group if each.barrier is not None]
    if not barriers:
        return ""
    along = "On the straight line between the first two members’ weights the loss"
    if max(barriers) <= 0:
        return f"{along} nowhere rises above the straight line between their losses (no barrier)."
    low, high = (show.digits(of(barriers), 2) for of in (min, max))
    rise = low if low == high else f"{low} to {high}, by size"
    return (
        f"{along} rises above the straight line between their losses by {rise} nats per token at "
        "most (the barrier)."
    )


def _average(group: list[Fused]) -> str:
    """What averaging did to models without a common ancestor, as it was measured."""
    found = [(each, each.average) for each in group if each.related is False and each.average]
    if not found:
        return ""
    above = [average.loss - each.worst_loss for each, average in found]
    each, average = found[above.index(max(above))]
    loss = (
        f"the average’s loss is {show.digits(average.loss)} where the members have "
        f"{show.digits(each.best_loss)} to {show.digits(each.worst_loss)} ({each.shown})"
    )
    if min(above) > DESTROYED:
        return f"Averaging strangers destroys the model here: {loss}."
    if min(above) > 0:
        return f"Averaging strangers gives a worse model than any member here: {loss}."
    return (
        f"Averaging strangers did not make all models worse than their worst member here: {loss}."
    )


def _against_size(group: list[Fused]) -> str:
    """Whether the gain grows with size, of the uniform average and of the ensemble; what is worse
    at every size has none."""
    sized = [each for each in group if each.params]
    if len({each.params for each in sized}) < 2:
        return ""
    said = []
    for name, of in (("average", "average"), ("ensemble", "ensemble")):
        mine = [(each.params, found) for each in sized if (found := getattr(each, of))]
        if len(mine) < 2 or all(outcome.verdict == "worse" for _, outcome in mine):
            continue
        gains = [outcome.gain for _, outcome in mine]
        fitted = headline.slope([params for params, _ in mine], gains, [0] * len(mine))
        if fitted is not None:
            said.append(f"The gain of the {name} {_trend(fitted)}.")
    return " ".join(said)


def _trend(fitted: headline.Slope) -> str:
    factor = show.digits(fitted.factor, 2)
    change = (
        f"{fusiongrowth.signed(fitted.change)} nats per token for {factor} times the parameters"
    )
    if fitted.bounds is None:
        few = show.plural(fitted.points, "size")
        return f"changes with size by {change}; {few} are too few to tell that from chance"
    low, high = fitted.bounds
    held = f"(95 % interval {show.interval(low, high)})"
    if low <= 0 <= high:
        return f"changes with size by {change} {held}: whether it grows cannot be told"
    return f"{'grows' if low > 0 else 'shrinks'} with size, by {change} {held}"


def _chosen(group: list[Fused]) -> str:
    known = [outcome.row["chosen_apart"] for each in group for outcome in each.fused]
    if all(show.absent(value) or bool(value) for value in known):
        return ""
    return (
        "The held-out text is too short to choose weights on other windows than the loss is of, so "
        "losses of weights that were chosen by loss are too low."
    )
