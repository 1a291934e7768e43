"""How a fine-tuning went, in sentences: what it forgot, left out and cost, what is unfinished."""

from __future__ import annotations

from collections.abc import Iterator

from llama_bench.derive.words import show
from llama_bench.derive.words.finetunings import Tuning


def words(tables, tuning: Tuning) -> list[str]:
    told = (
        _forgotten(tuning),
        _unfinished(tuning),
        _unread(tuning),
        _cost(tables, tuning),
        _left_out(tables, tuning),
        _failed(tables, tuning),
    )
    return [text for texts in told for text in texts]


def _unfinished(tuning: Tuning) -> Iterator[str]:
    """Runs whose last state is the best: what they are compared with may look better than it is."""
    kinds = {
        "fine-tunings": [run for o in tuning.outcomes for _, run in o.runs.iterrows()],
        "trainings from zero": [run for _, run in tuning.zero.iterrows()],
    }
    told = []
    for kind, runs in kinds.items():
        count = sum(run["best_step"] == run["steps"] for run in runs)
        if count:
            rates = sorted(run["learning_rate"] for run in runs)
            ends = dict.fromkeys(show.digits(rate, 2) for rate in (rates[0], rates[-1]))
            told.append(f"{count} of {len(runs)} {kind} (peak rate {' to '.join(ends)})")
    if told:
        yield (
            f"Not at their end: the last state was the best of {show.listed(told)}. With more "
            "steps they would go lower, and what is compared here is unfinished."
        )


def _unread(tuning: Tuning) -> Iterator[str]:
    """Where the steps ended before all labelled examples were read."""
    epochs = [o.mean("epochs") for o in tuning.whole]
    least = min((each for each in epochs if each is not None), default=1.0)
    if least < 1:
        yield (
            f"Not all was read: the steps end after {show.percent(least)} of the labelled "
            "examples, where fewest were; more steps read the rest."
        )


def _forgotten(tuning: Tuning) -> Iterator[str]:
    """Bits per byte of the corpus before and after, and where they rise most and least; or why
    they are not known."""
    for method, outcomes in tuning.by_method.items():
        moved = []
        for outcome in outcomes:
            bits = [outcome.mean(f"forgetting_bits_per_byte_{w}") for w in ("before", "after")]
            if None not in bits:
                moved.append((outcome.model, *bits))
        if not moved:
            continue
        ends = [moved[0], *([moved[-1]] if len(moved) > 1 else [])]
        listed = [f"{show.digits(b)} to {show.digits(a)} at {model}" for model, b, a in ends]
        worse = sum(after > before for _, before, after in moved)
        text = (
            f"What it forgets ({method}): bits per byte of held-out text of the corpus go from "
            f"{show.listed(listed)}; they rise at {worse} of {show.plural(len(moved), 'size')}"
        )
        if len(moved) > 2:
            rises = sorted((after - before, model) for model, before, after in moved)
            (least, at_least), (most, at_most) = rises[0], rises[-1]
            text += f", most at {at_most} ({most:+.2g}) and least at {at_least} ({least:+.2g})"
        yield f"{text}."
    unknown: dict[str, dict[str, None]] = {}
    for outcome in (each for outcomes in tuning.by_method.values() for each in outcomes):
        for reason in outcome.runs["forgetting_reason"].dropna():
            unknown.setdefault(reason, {})[outcome.model] = None
    for reason, models in unknown.items():
        yield f"What it forgets was not measured ({', '.join(models)}): {reason}."


def _cost(tables, tuning: Tuning) -> Iterator[str]:
    runs = tables["finetunings"]
    runs = runs[(runs["finetune"] == tuning.name) & runs["seconds_total"].notna()]
    if not len(runs):
        return
    flops = runs["flops"].sum()
    text = (
        f"It cost {show.plural(len(runs), 'run')}, {show.duration(runs['seconds_total'].sum())} "
        f"and {show.digits(flops, 2)} FLOPs"
    )
    trained = tables["trainings"].query("role == 'ladder' and status == 'ok'")
    whole = runs[(runs["fraction"] == 1) & runs["from_zero"].isna()]
    keys = ["model", "budget", "seed"]
    both = whole.merge(trained[[*keys, "flops_exact"]].drop_duplicates(keys), on=keys)
    share = (both["flops"] / both["flops_exact"]).dropna()
    if len(share):
        ends = dict.fromkeys(show.percent(end) for end in (share.min(), share.max()))
        text += f"; one on all of the data takes {' to '.join(ends)} of its base’s training FLOPs"
    yield f"{text}."


def _left_out(tables, tuning: Tuning) -> Iterator[str]:
    rows = tables["exclusions"]
    rows = rows[rows["finetune"] == tuning.name]
    kept = rows["kept"].notna()
    if not kept.all():
        yield f"Labelled examples left out, at most, in a run: {_reasons(rows[~kept])}."
    if kept.any():
        yield f"Labelled examples asked all the same, at most, in a run: {_reasons(rows[kept])}."


def _reasons(rows) -> str:
    parts = rows["part"].map(lambda part: "" if show.absent(part) else f"of {part}: ")
    most = rows.assign(why=parts + rows["reason"]).groupby(["verb", "why"])["examples"].max()
    return show.listed([f"{show.exact(count)} ({why})" for (_, why), count in most.items()])


def _failed(tables, tuning: Tuning) -> Iterator[str]:
    rows = tables["finetunings"]
    rows = rows[(rows["finetune"] == tuning.name) & (rows["status"] != "ok")]
    if len(rows):
        listed = [f"{row.model} ({row.method}): {row.status}" for row in rows.itertuples()]
        yield f"Not in these numbers, because they ended otherwise: {show.listed(listed)}."
