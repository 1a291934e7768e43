"""The ledger of forecasts in words: what was held out, what was foretold, and how it came out.

Only a forecast that was written before its run began, and whose run has a loss, is scored. Each
other one is shown with what it is instead: waiting, too late, or none.
"""

from __future__ import annotations

from typing import Any

from llama_bench.derive.words import show

SPOKEN = 0.95  # the level of the interval in sentences
DIGITS = 4  # of a loss: the third is where forecasts err
# state of a forecast point -> its tag in the report
STATES = {
    "scored": "written before the run",
    "waiting": "not scored yet",
    "unknown": "not known which came first",
    "late": "written after the run began: no forecast",
    "lost": "the run has no loss",
    "none": "no forecast",
}


def words(ledger: list[dict[str, Any]]) -> list[str]:
    """Sentences on all forecasts of the study, as `points` gives them; none of none."""
    if not ledger:
        return []
    return [_held_out(ledger), _lead(ledger), *_summary(ledger), *_exceptions(ledger)]


def points(forecasts, keys=("forecast", "run")) -> list[dict[str, Any]]:
    """One entry per forecast file and held-out run (`keys`): the columns that all its levels share,
    then `intervals` (level -> its row) and `state`. Newest file first, then smallest compute."""
    forecasts = forecasts.sort_values(
        ["written", "forecast", "flops", "run", "level"],
        ascending=[False, True, True, True, True],
        kind="stable",
    )
    found = []
    for _, rows in forecasts.groupby([*keys], sort=False, dropna=False):
        entries = rows.to_dict("records")
        point = entries[0] | {"intervals": {entry["level"]: entry for entry in entries}}
        found.append(point | {"state": _state(point)})
    return found


def _state(point: dict[str, Any]) -> str:
    if show.absent(point["point"]):
        return "none"
    if point["run_status"] == "missing record":
        return "waiting"
    if show.absent(point["before"]):
        return "unknown"
    if not point["before"]:
        return "late"
    return "lost" if show.absent(point["loss"]) else "scored"


def spoken(point: dict[str, Any]) -> dict[str, Any]:
    """The row of the level that sentences speak of: 95 %, or the widest there is."""
    return point["intervals"].get(SPOKEN) or point["intervals"][max(point["intervals"])]


def between(entry: dict[str, Any]) -> str:
    """A level's interval as shown text."""
    return f"{show.digits(entry['low'], DIGITS)} to {show.digits(entry['high'], DIGITS)}"


def _name(point: dict[str, Any]) -> str:
    seed = "" if show.absent(point["seed"]) or not point["seed"] else f", seed {point['seed']:.0f}"
    return f"{point['model']} at {show.short(point['tokens'])} tokens{seed}"


def _held_out(ledger: list[dict[str, Any]]) -> str:
    newest = [point for point in ledger if point["forecast"] == ledger[0]["forecast"]]
    models = list(dict.fromkeys(str(point["model"]) for point in newest))
    tokens = sorted({point["tokens"] for point in newest})
    runs = int(newest[0]["runs_used"])
    text = (
        f"Held out: {show.listed(models)} at {show.listed(map(show.short, tokens))} tokens. A "
        "forecast is a file that the held-out training has as an input, so that it has to be "
        "written before the training may start"
    )
    if newest[0]["state"] == "none":
        return f"{text}."
    return f"{text}; this one rests on {show.plural(runs, 'other run')}."


def _lead(ledger: list[dict[str, Any]]) -> str:
    """The sentence on one forecast: the newest scored one of the largest run, if there is one."""
    order = list(STATES)
    newest = {name: -i for i, name in enumerate(dict.fromkeys(p["forecast"] for p in ledger))}
    point = max(ledger, key=lambda p: (-order.index(p["state"]), newest[p["forecast"]], p["flops"]))
    if point["state"] == "none":
        return f"No forecast could be made: {point['why']}."
    level = spoken(point)
    text = (
        f"The loss of {_name(point)} was forecast as {show.digits(point['point'], DIGITS)} "
        f"({show.percent(level['level'])}: {between(level)})"
    )
    if point["state"] == "waiting":
        return f"{text}; it is not trained yet."
    if point["state"] == "scored":
        where = "inside" if level["inside"] else "outside"
        return (
            f"{text} before it was trained; it came out at {show.digits(point['loss'], DIGITS)}: "
            f"{show.percent(abs(point['error_percent']) / 100)} off, {where} the interval."
        )
    text = f"{text}, but this tests nothing: {STATES[point['state']]}."
    if show.absent(point["loss"]):
        return text
    return f"{text} The run came out at {show.digits(point['loss'], DIGITS)}."


def _summary(ledger: list[dict[str, Any]]) -> list[str]:
    """How the scored forecasts did together, and the law behind the newest."""
    scored = [point for point in ledger if point["state"] == "scored"]
    said = []
    if len(scored) > 1:
        errors = [abs(point["error_percent"]) / 100 for point in scored]
        held = []
        for level in sorted(set.intersection(*(set(point["intervals"]) for point in scored))):
            inside = sum(bool(point["intervals"][level]["inside"]) for point in scored)
            held.append(f"in the {show.percent(level)} interval for {inside}")
        told, them = _tally(scored)
        said.append(
            f"{told} {show.percent(sum(errors) / len(errors))} off on average and at most "
            f"{show.percent(max(errors))}. The measured loss lay {show.listed(held)} of {them}."
        )
    newest = ledger[0]
    if newest["state"] != "none":
        why = "" if show.absent(newest["why"]) else f"; why this one: {newest['why']}"
        said.append(
            f"The forecast was made by the law {newest['law']}{why}. Intervals are for the loss of "
            "a single run; below each stands the share of hidden larger runs that such an interval "
            "held in the back-test."
        )
        if newest["status"] != "converged":
            said.append(
                f"The fit that forecast ended {newest['status']}: the runs do not determine this "
                "law, so read its intervals, not its points."
            )
    return said


def _tally(scored: list[dict[str, Any]]) -> tuple[str, str]:
    """How many forecasts are scored, and what is counted of them: a forecast is held against the
    trainings of all its seeds, a training against every forecast of it."""
    forecasts, runs = (len({*map(of, scored)}) for of in (_forecast, lambda point: point["run"]))
    were = "was" if forecasts == 1 else "were"
    told = f"The {show.plural(forecasts, 'forecast')} that {were} written in time"
    if forecasts == len(scored):
        return f"{told} {were}", "them"
    times = "these" if runs == len(scored) else f"{len(scored)} comparisons"
    return f"{told}, held against {show.plural(runs, 'training')}, {were}", times


def _forecast(point: dict[str, Any]) -> tuple:
    return point["forecast"], point["model"], point["tokens"]


def _exceptions(ledger: list[dict[str, Any]]) -> list[str]:
    """What is shown and not scored, each kind in a sentence."""
    texts = {
        "waiting": "{} not scored yet: the held-out run has no result.",
        "unknown": "{} not scored: it is not known whether forecast or run came first.",
        "late": "{} written after the run had begun and so no forecast: shown, not scored.",
        "lost": "{} not scored: the held-out run ended without a loss.",
        "none": "{} empty: no forecast could be made ({why}).",
    }
    said = []
    for state, text in texts.items():
        mine = [point for point in ledger if point["state"] == state]
        if 0 < len(mine) < len(ledger):
            counted = f"{len(mine)} of {len(ledger)} forecasts {'is' if len(mine) == 1 else 'are'}"
            if len({_forecast(point) for point in ledger}) < len(ledger):
                counted = f"For {len(mine)} of {len(ledger)} trainings the forecast is"
            said.append(text.format(counted, why=mine[0]["why"]))
    return said
