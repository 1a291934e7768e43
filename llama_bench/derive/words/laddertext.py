"""What the ladder's trainings say of the ladder itself, before any law is read off it: what shared
trunks saved, how near the mean of a trunk's weights comes to the annealed loss, and how much of a
difference between two losses is chance."""

from __future__ import annotations

import math

import numpy as np

from llama_bench.derive.words import show


def words(tables) -> list[str]:
    """Sentences of the section on loss; none of what was not measured."""
    trainings = tables["trainings"]
    said = [_batches(trainings), _saved(trainings), _averaged(trainings), _seeds(tables["ladder"])]
    return [text for text in said if text]


def _batches(trainings) -> str:
    """Where sizes of one budget were trained with unlike batches: that their steps differ too. The
    largest such budget is spoken of."""
    runs = of_role(trainings[trainings["data"].isna()], "ladder")
    runs = runs.dropna(subset=["budget", "loss", "batch", "context", "steps"])
    runs = runs.assign(step_tokens=runs["batch"] * runs["context"])
    unlike = runs.groupby("budget")["step_tokens"].transform("nunique") > 1
    if not unlike.any():
        return ""
    runs = runs[unlike & (runs["budget"] == runs.loc[unlike, "budget"].max())]
    runs = runs.sort_values("parameters_without_embeddings", kind="stable")
    parts = [
        f"{show.exact(tokens)} tokens in an optimizer step and {_span(mine['steps'])} steps for "
        f"{show.listed(mine['model'].unique())}"
        for tokens, mine in runs.groupby("step_tokens")
    ]
    return (
        f"Not only size differs: at {show.short(runs['budget'].iloc[0])} tokens the batch is "
        f"{show.listed(parts)}, so that between these the effect of size cannot be told from that "
        "of batch and steps."
    )


def _span(steps) -> str:
    low, high = (show.exact(end) for end in (steps.min(), steps.max()))
    return low if low == high else f"{low} to {high}"


def of_role(trainings, role: str):
    """Trainings of the ladder (on any text), of the sweep, or of the sensitivity strip; a run that
    the study calls by two names once."""
    return trainings[trainings["role"] == role].drop_duplicates("run")


def saving(trainings) -> tuple[int, float, float] | None:
    """(trainings, their tokens, the tokens that were trained for them) where trunks were shared."""
    runs = of_role(trainings, "ladder").dropna(subset=["tokens", "trained_tokens"])
    asked, trained = float(runs["tokens"].sum()), float(runs["trained_tokens"].sum())
    return (len(runs), asked, trained) if 0 < trained < asked else None


def _saved(trainings) -> str:
    found = saving(trainings)
    if found is None:
        return ""
    count, asked, trained = found
    texts = ", on all texts," if trainings["data"].notna().any() else ""
    return (
        f"Budgets of one size share their trunk: {show.plural(count, 'training')}{texts} of "
        f"{show.short(asked)} tokens in all took {show.short(trained)} tokens of training, "
        f"{show.digits(asked / trained)} times less than one by one."
    )


def averages(trainings):
    """The ladder's runs whose trunk was measured where their branch left it, with `excess`, the
    averaged loss over the annealed one in %, and `share`, how much of the way from the trunk's own
    loss down to the annealed one the mean covers (null where annealing lowered nothing)."""
    runs = of_role(trainings[trainings["data"].isna()], "ladder")
    runs = runs.dropna(subset=["loss", "averaged_loss", "trunk_loss"])
    way = runs["trunk_loss"] - runs["loss"]
    return runs.assign(
        excess=100 * (runs["averaged_loss"] / runs["loss"] - 1),
        share=(runs["trunk_loss"] - runs["averaged_loss"]) / way.where(way > 0),
    )


def _averaged(trainings) -> str:
    runs = averages(trainings)
    if not len(runs):
        return ""
    middle, low, high = (float(of(runs["excess"])) for of in (np.median, np.min, np.max))
    text = (
        "The mean of a trunk’s weights, which costs no training, has a loss "
        f"{show.digits(abs(middle), 2)} % {'above' if middle >= 0 else 'below'} the annealed one "
        f"(median of {show.plural(len(runs), 'run')}; {show.interval(low, high)} %)"
    )
    share = runs["share"].median()
    if not show.absent(share) and share < 0:
        text += ", and is worse than the trunk’s own: so early its older weights only hold it back"
    elif not show.absent(share):
        text += f"; it covers {show.percent(share)} of the way down from the trunk’s own loss"
    return text + "."


def seed_noise(ladder) -> tuple[float, int] | None:
    """(standard deviation between seeds as a share of the loss, pooled; runs it is taken from)."""
    groups = ladder.groupby(["model", "token_budget"])["loss"]
    counts, means, variances = groups.count(), groups.mean(), groups.var()
    repeated = counts > 1
    if not repeated.any():
        return None
    squares = ((counts - 1) * variances / means**2)[repeated].sum()
    return math.sqrt(squares / (counts - 1)[repeated].sum()), int(counts[repeated].sum())


def _seeds(ladder) -> str:
    noise = seed_noise(ladder)
    if noise is None:
        return ""
    return (
        f"Between seeds a loss spreads by {show.percent(noise[0])} (standard deviation, pooled "
        f"over {show.plural(noise[1], 'run')} of sizes and budgets with several seeds); "
        "differences smaller than this are noise."
    )
