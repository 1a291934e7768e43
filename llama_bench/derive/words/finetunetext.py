"""What a fine-tuning bought, in sentences: each from the numbers of its table, with their errors.

"Better" and "worse" are said of differences that are more than chance: by the paired test where
there is one, else beyond 1.96 standard errors. All else cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator

from llama_bench.derive.words import answertext, finetunecourse, finetunings, scores, show
from llama_bench.derive.words.finetuned import Outcome
from llama_bench.derive.words.finetunings import RIGHT, Tuning
from llama_bench.derive.words.measured import Number, trend
from llama_bench.derive.words.scores import WIDTH


def words(tables, tuning: Tuning) -> list[str]:
    methods = tuning.by_method.items()
    told = (
        _examples(tables, tuning),
        *(_gained(tuning, *one) for one in methods),
        _in_part(tables, tuning),
        _constant(tables, tuning),
        _frozen(tuning),
        _majority(tuning),
        _other_items(tuning),
        *(_by_size(*one) for one in methods),
        _from_zero(tuning),
        _data(tuning),
    )
    return [*(text for texts in told for text in texts), *finetunecourse.words(tables, tuning)]


def _examples(tables, tuning: Tuning) -> Iterator[str]:
    parts = tuning.parts.set_index("part")
    if not {"train", "validation", "test"} <= set(parts.index):
        return
    counts = [show.exact(parts["examples"][part]) for part in ("train", "validation", "test")]
    labels = parts["labels"].iloc[0]
    kind = "The answers are written" if show.absent(labels) else f"{labels:.0f} labels"
    about = tables["tasks"].loc[tables["tasks"]["task"] == tuning.task, "description"].dropna()
    said = f"{about.iloc[0][0].upper()}{about.iloc[0][1:].rstrip('.')}. " if len(about) else ""
    yield (
        f"{said}{kind}; {counts[0]} examples to train on, {counts[1]} to choose the state that is "
        f"kept, {counts[2]} to test{_together(parts.loc['test'])}."
    )


def _together(test) -> str:
    """That examples of one document are alike, which no error here knows of."""
    if show.absent(test["documents"]) or test["documents"] >= test["examples"]:
        return ""
    return (
        f", from {show.exact(test['documents'])} documents (errors take them as independent, and "
        "are too small as far as those of one document are alike)"
    )


def _gained(tuning: Tuning, method: str, outcomes: list[Outcome]) -> Iterator[str]:
    told = [o for o in outcomes if o.gain and o.before and o.after]
    if not told:
        return
    metric = scores.metric_name(tuning.metric)
    ends = dict.fromkeys((told[0].model, told[-1].model))
    moved = [
        f"{o.model} from {show.digits(o.before.value)} to {show.digits(o.after.value)} "
        f"({o.gain.signed})"
        for o in told
        if o.model in ends
    ]
    yield (
        f"Fine-tuning ({method}) on all of the examples brings {metric} of {show.listed(moved)}. "
        f"{_verdict([o.gain for o in told], 'than the base')}."
    )


def _in_part(tables, tuning: Tuning) -> Iterator[str]:
    """The same by a score that counts answers right in part; or that none is right as a whole."""
    partly = finetunings.in_part(tables, tuning)
    for method, outcomes in partly.by_method.items() if partly else ():
        yield from _gained(partly, method, outcomes)
    mine = tables["scores"][tables["scores"]["suite"] == tuning.name]
    if tuning.metric != "exact_match" and (mine["metric"] == "exact_match").any():
        yield "No model, before or after, writes an answer that matches exactly."


def _verdict(differences: list[Number], than: str) -> str:
    """How many of the sizes are better, worse, or cannot be told."""
    better = sum(_sign(number) > 0 for number in differences)
    worse = sum(_sign(number) < 0 for number in differences)
    rest, of = len(differences) - better - worse, show.plural(len(differences), "size")
    parts = [f"{than} at {better} of {of}"]
    parts += [f"worse at {worse}"] if worse else []
    parts += [f"it cannot be told at {rest}"] if rest else []
    return f"It is better {', '.join(parts)}"


def _sign(number: Number) -> int:
    apart = number.apart
    if apart is None:
        apart = number.error is not None and abs(number.value) > WIDTH * number.error
    return (number.value > 0) - (number.value < 0) if apart else 0


def _constant(tables, tuning: Tuning) -> Iterator[str]:
    """A model that learned to give one answer only."""
    for method in tuning.methods:
        for text in answertext.words({"answers": tuning.answered(tables["answers"], method)}):
            yield f"After fine-tuning ({method}): {text[0].lower()}{text[1:]}"


def _frozen(tuning: Tuning) -> Iterator[str]:
    said = []
    for method, outcomes in tuning.by_method.items():
        told = [o for o in outcomes if o.after and o.frozen and tuning.metric == "acc"]
        differences = [tuning.over_frozen(outcome) for outcome in told]
        if told:
            begun = f"Fine-tuning ({method}) less that is {differences[-1].signed} there"
            said.append((told[-1], f"{begun}. {_verdict(differences, 'than that')}"))
    if said:
        yield (
            "Without moving a weight, a logistic regression on the base’s mean hidden states "
            f"scores {said[0][0].frozen.shown} at {said[0][0].model}. "
            f"{'. '.join(text for _, text in said)}. (Errors of two scores that are not paired: a "
            "little too wide.)"
        )


def _majority(tuning: Tuning) -> Iterator[str]:
    said, values = [], {}
    for method, outcomes in tuning.by_method.items() if tuning.metric in RIGHT else ():
        told = [o for o in outcomes if o.after and o.majority is not None]
        if told:
            over = [tuning.over_majority(outcome) for outcome in told]
            verdict = _verdict(over, "than that").removeprefix("It is ")
            said.append(f"{method} is {verdict}")
            values |= {show.digits(o.majority): None for o in told}
    if said:
        yield (
            f"Always giving the commonest answer of the training part is right for "
            f"{show.listed(values)} of the test items: {'; '.join(said)}."
        )


def _other_items(tuning: Tuning) -> Iterator[str]:
    cut = [o for o in tuning.whole if o.left_out]
    if not cut:
        return
    few = ["losses"]
    few += ["frozen features"] if any(o.frozen for o in cut) else []
    few += ["the commonest answer"] if any(o.majority_items < o.items for o in cut) else []
    held = (
        " A score is called better or worse than such a baseline only where it is so whatever the "
        "baseline answers on the rest."
    )
    yield (
        f"Up to {show.exact(max(o.left_out for o in cut))} of "
        f"{show.exact(max(o.items for o in cut))} test examples are longer than the context (at "
        f"{show.listed(dict.fromkeys(o.model for o in cut))}): scores are of all, cut from the "
        f"left; {show.listed(few)} are of the others alone.{held if few[1:] else ''}"
    )


def _by_size(method: str, outcomes: list[Outcome]) -> Iterator[str]:
    """Whether the gain grows with size; models trained elsewhere are on a line of their own."""
    for origin, where in (("trained", "trained here"), ("pretrained", "trained elsewhere")):
        mine = [o for o in outcomes if o.origin == origin]
        if origin == "pretrained" and len({o.params for o in mine}) < 3:
            continue  # two of them differ by more than their size
        if len(mine) > 1 or mine == outcomes or (mine and origin == "trained"):
            yield _trend(method, mine, where if len(mine) < len(outcomes) else "")


def _trend(method: str, outcomes: list[Outcome], where: str) -> str:
    of = f"{method}, {where}" if where else method
    told = [o for o in outcomes if o.gain]
    found = trend([(o.params, o.gain) for o in told])
    if found is None:
        lacks = len(outcomes) - len(told)
        unsure = [o.model for o in told if not o.gain.error]
        why = f"{show.plural(len({o.params for o in told}), 'size')} alone has a gain"
        if len({o.params for o in told}) > 1:
            why = f"the gain of {show.listed(unsure)} has no error"
        elif lacks:
            why += f", and of {lacks} there is no score before or after"
        return f"Whether the gain ({of}) grows with size cannot be told: {why}."
    low, high = (found.value + sign * WIDTH * found.error for sign in (-1, 1))
    verdict = "cannot be told from these sizes, for that interval holds zero"
    if low > 0:
        verdict = "it grows"
    elif high < 0:
        verdict = "it shrinks"
    return (
        f"Does size change the gain ({of})? Ten times the parameters go with {found.signed} "
        f"(95 % interval {show.interval(low, high)}, over {len(told)} sizes): {verdict}."
    )


def _from_zero(tuning: Tuning) -> Iterator[str]:
    told = [o for o in tuning.whole if o.over_zero and o.method == tuning.methods[0]]
    if told:
        last = told[-1]
        yield (
            "The same shapes from random weights, on the same examples: beginning with the trained "
            f"base is worth {last.over_zero.signed} in {scores.metric_name(tuning.metric)} at "
            f"{last.model}. {_verdict([o.over_zero for o in told], 'than from zero')}."
            f"{_as_good(tuning, told)}"
        )


def _as_good(tuning: Tuning, told: list[Outcome]) -> str:
    """Where training from zero does as well, with the losses of both."""
    if any(_sign(o.over_zero) > 0 for o in told):
        return ""
    zero = tuning.zero[tuning.zero["fraction"] == 1].groupby("model")["test_loss"].mean()
    losses = [
        f"{show.digits(o.mean('test_loss'))} against {show.digits(zero[o.model])} at {o.model}"
        for o in told
    ]
    return (
        " So pre-training bought nothing here that this test can tell; test losses are "
        f"{show.listed(losses)} from zero."
    )


def _data(tuning: Tuning) -> Iterator[str]:
    """The largest model on the fewest examples, and on all of them."""
    told = [o for o in tuning.outcomes if o.after and o.method == tuning.methods[0]]
    told = [o for o in told if o.model == told[-1].model]
    few = min(told, key=lambda o: o.fraction, default=None)
    whole = max(told, key=lambda o: o.fraction, default=None)
    if few is whole:
        return
    said = []
    for outcome in (few, whole):
        zero = f" and {outcome.zero.shown} from zero" if outcome.zero else ""
        examples = show.plural(round(outcome.mean("examples")), "labelled example")
        said.append(f"on {examples} {outcome.after.shown} fine-tuned{zero}")
    yield f"Data: {few.model} scores {', and '.join(said)}."
