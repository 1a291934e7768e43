"""How task scores are read: which metric tells a task, what chance is, what an error bar means."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from llama_bench.derive.tables import main_metric
from llama_bench.derive.words import show

METRICS = {
    "acc": "accuracy",
    "acc_norm": "accuracy, length-normalised",
    "exact_match": "exact match",
    "bits_per_byte": "bits per byte",
    "f1": "F1",
    "token_f1": "token F1",
    "chrf": "chrF",
    "bleu": "BLEU",
    "gold_probability": "probability of the right answer",
    "gold_bits_per_byte": "bits per byte of the right answer",
    "gold_margin": "margin of the right answer",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "macro_f1": "macro F1",
}
# what moves before the main metric does, in the order in which it is preferred beside it: of
# multiple choice the bits per byte, which have more signal for their noise (Heineman et al. 2025)
_SMOOTH = ("gold_bits_per_byte", "gold_probability", "token_f1", "f1", "chrf", "rougeL", "rouge1")
WIDTH = 1.96  # standard errors: a 95 % interval of a normal mean
# means of right (1) or wrong (0) over the items
COUNTED = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
_TO_ONE = ("gold_probability", "ece", "macro_f1")
_FROM_ZERO = ("bits_per_byte", "gold_bits_per_byte", "brier", "ter")
BLURRED = "†"  # behind a task that cannot tell sizes apart
KEYS = ["suite", "task", "metric", "filter"]
# the same number as bits per byte in another dress, where that stands beside them
_REDUNDANT = ("word_perplexity", "byte_perplexity")


def told(tables):
    """The rows of `scores` that have a value and say something that no other row says."""
    scores = tables["scores"].dropna(subset=["value"])
    known = set(scores.loc[scores["metric"] == "bits_per_byte", "task"])
    return scores[~(scores["metric"].isin(_REDUNDANT) & scores["task"].isin(known))]


def main(tables):
    """Of those, one metric per task (tables/main_metric.py)."""
    scores = told(tables)
    own = own_metrics(tables)
    best = {
        task: main_metric.of(rows["metric"], own.get(task)) for task, rows in scores.groupby("task")
    }
    return scores[scores["metric"] == scores["task"].map(best)]


def own_metrics(tables) -> dict[str, str]:
    """The metric by which each task tells itself: of a held-out one as its record has it, of others
    the first that its file lists."""
    scores, held_out = tables["scores"], tables["tasks"]
    listed = scores[scores["first"].eq(True).fillna(False)]
    return dict(zip(listed["task"], listed["metric"], strict=True)) | dict(
        zip(held_out["task"], held_out["metric"], strict=True)
    )


def telling(rows, own: str | None) -> str | None:
    """By which metric these rows of `scores` tell a task that was learned: the task's `own`, or
    what counts answers right in part where none is exactly right."""
    if not len(rows):
        return own
    main = main_metric.of(rows["metric"], own)
    if main == "exact_match" and not rows.loc[rows["metric"] == main, "value"].any():
        return companion(rows["metric"], main) or main
    return main


def companion(metrics, main: str) -> str | None:
    """The smooth metric that stands beside the main one; None where the task has none."""
    return next((name for name in _SMOOTH if name in set(metrics) - {main}), None)


def blurred(tables) -> set[tuple]:
    """KEYS of the scores that cannot tell the sizes apart at this scale (tables/screen.py)."""
    screen = tables["screen"]
    told = screen[(screen["over"] == "sizes") & screen["told_apart"].notna()]
    return set(told.loc[~told["told_apart"].astype(bool), KEYS].itertuples(index=False, name=None))


def interval(metric: str, value: float, error: float | None, items: float | None):
    """(low, high) of a score, 95 %; None where nothing is known of it.

    Of a share of right items Wilson's (1927, JASA 22, 209; without his continuity correction): it
    stays within 0 and 1, and none right of twenty has one too, where the normal one has no width.
    Of all else the value and WIDTH standard errors, as far as the metric goes (`bounds`).
    """
    if metric in COUNTED and not show.absent(items) and items > 0 and 0 <= value <= 1:
        weight = WIDTH**2 / items
        middle = (value + weight / 2) / (1 + weight)
        reach = math.sqrt(weight * (value * (1 - value) + weight / 4)) / (1 + weight)
        # at the ends one limit is the value itself, but for rounding
        return min(value, max(0.0, middle - reach)), max(value, min(1.0, middle + reach))
    if show.absent(error):
        return None
    least, most = bounds(metric, [value])
    return max(least, value - WIDTH * error), min(most, value + WIDTH * error)


def bounds(metric: str, values) -> tuple[float, float]:
    """The least and the greatest score that there can be, infinite where there is no end, as where
    one of `values`, which were reached, lies beyond: another metric of that name."""
    most = 1.0 if metric in _TO_ONE else main_metric.most(metric, values)
    least = 0.0 if most is not None or metric in _FROM_ZERO else -math.inf
    most = math.inf if most is None else most
    return (least, most) if all(least <= each <= most for each in values) else (-math.inf, math.inf)


def bars(means) -> np.ndarray:
    """(2, rows): how far the interval of each row (metric, value, error, items) reaches below and
    above its value; 0 where nothing is known of it."""
    reach = np.zeros((2, len(means)))
    for place, row in enumerate(means.itertuples()):
        found = interval(row.metric, row.value, row.error, row.items)
        if found is not None:
            reach[:, place] = row.value - found[0], found[1] - row.value
    return reach


def task_name(task: str) -> str:
    """As readers know it, without what tells the tasks that were written here from lm-eval's."""
    return task.removeprefix("heldout_").removeprefix("finetune_").replace("_", " ")


def namer(rows) -> Callable[..., str]:
    """(suite, task, filter) -> the task's name among `rows`: with its suite where several ask it,
    with the filter where several read the same metric from its answers."""
    rows = rows.reindex(columns=KEYS).drop_duplicates()
    suites = rows.groupby("task")["suite"].nunique()
    filters = rows.groupby(["suite", "task", "metric"])["filter"].nunique()
    several = {key[:2] for key in filters[filters > 1].index}

    def name(suite, task: str, filter=None) -> str:
        more = [suite] if suites.get(task, 0) > 1 else []
        more += [filter] if filter is not None and (suite, task) in several else []
        return task_name(task) + (f" ({', '.join(more)})" if more else "")

    return name


def title(name: str, metric: str) -> str:
    """Of a figure; a task that has its metric's name is named once."""
    return ": ".join(dict.fromkeys([name, metric_name(metric)]))


def axis_name(metric: str) -> str:
    """A name that is short enough for an axis."""
    name = metric_name(metric).replace("of the right answer", "of right answer")
    return f"{name[0].upper()}{name[1:]}"


def metric_name(metric: str) -> str:
    return METRICS.get(metric, metric.replace("_", " "))


def chance_means(metrics, held_out: bool) -> str:
    """What the chance level of a task's `metrics` is; `held_out`: of a task that the verb `tasks`
    wrote (measure/tasks.py), else of one of lm-eval (measure/evaluation/scores.py)."""
    metrics = set(metrics)
    if "bits_per_byte" in metrics:
        return "every byte drawn evenly"
    if metrics & {"gold_probability", "brier"}:
        return "all choices equally likely"
    if not held_out and metrics & {*COUNTED} - {"exact_match"}:
        return "an even guess, where the task’s file says no other"
    if not held_out:
        return "as the task’s file has it"
    if "exact_match" in metrics:
        return "the commonest answer, whatever is asked"
    return "the best constant answer or an even guess, whichever is right more often"


def above_chance(tables) -> str:
    """A sentence: on which tasks the largest trained model is clear of chance; "" if none has."""
    scores = main(tables)
    scores = scores[scores["chance"].notna() & scores["standard_error"].notna()]
    trained = scores[scores["origin"] == "trained"]
    origins = scores["origin"]
    scores = trained if len(trained) else scores
    largest = scores[
        scores["parameters_without_embeddings"] == scores["parameters_without_embeddings"].max()
    ]
    largest = largest[(largest["budget"] == largest["budget"].max()) | largest["budget"].isna()]
    largest = largest.drop_duplicates(KEYS)
    if not len(largest):
        return ""
    clear = largest.apply(_beyond_chance, axis=1).astype(bool)
    keys, name = ["suite", "task", "filter"], namer(largest)
    others = [name(*key) for key in largest.loc[~clear, keys].itertuples(index=False)]
    kind = "trained model" if 0 < len(trained) < len(origins) else "model"
    text = (
        f"The largest {kind}, {largest['model'].iloc[0]}, is better than chance beyond its "
        f"95 % interval on {clear.sum()} of {show.plural(len(largest), 'task')}"
    )
    return text + (f"; not on {show.listed(others)}." if others else ".")


def _beyond_chance(row) -> bool:
    low, high = interval(row["metric"], row["value"], row["standard_error"], row["items"])
    return low > row["chance"] if row["higher_is_better"] else high < row["chance"]
