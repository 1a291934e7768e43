"""How task scores are read: which metric tells a task, what chance is, what an error bar means."""

from __future__ import annotations

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
    """The main metric of each held-out task, as the task's record has it."""
    return dict(zip(tables["tasks"]["task"], tables["tasks"]["metric"], strict=True))


def companion(metrics, main: str) -> str | None:
    """The smooth metric that stands beside the main one; None where the task has none."""
    return next((name for name in _SMOOTH if name in set(metrics) - {main}), None)


def blurred(tables) -> set[tuple]:
    """KEYS of the scores that cannot tell the sizes apart at this scale (tables/screen.py)."""
    screen = tables["screen"]
    told = screen[(screen["over"] == "sizes") & screen["told_apart"].notna()]
    return set(told.loc[~told["told_apart"].astype(bool), KEYS].itertuples(index=False, name=None))


def task_name(task: str) -> str:
    return task.removeprefix("heldout_").replace("_", " ")


def axis_name(metric: str) -> str:
    """A name that is short enough for an axis."""
    name = metric_name(metric).replace("of the right answer", "of right answer")
    return f"{name[0].upper()}{name[1:]}"


def metric_name(metric: str) -> str:
    return METRICS.get(metric, metric.replace("_", " "))


def above_chance(tables) -> str:
    """A sentence: on which tasks the largest trained model is clear of guessing; "" if none has."""
    scores = main(tables)
    scores = scores[scores["chance"].notna() & scores["standard_error"].notna()]
    trained = scores[scores["origin"] == "trained"]
    scores = trained if len(trained) else scores
    largest = scores[
        scores["parameters_without_embeddings"] == scores["parameters_without_embeddings"].max()
    ]
    largest = largest[(largest["budget"] == largest["budget"].max()) | largest["budget"].isna()]
    largest = largest.drop_duplicates(KEYS)
    if not len(largest):
        return ""
    sign = largest["higher_is_better"].map({True: 1.0, False: -1.0}).astype(float)
    clear = sign * (largest["value"] - largest["chance"]) > WIDTH * largest["standard_error"]
    names = [f"{task}" for task in largest.loc[clear, "task"]]
    others = [f"{task}" for task in largest.loc[~clear, "task"]]
    text = (
        f"The largest model, {largest['model'].iloc[0]}, is better than guessing by more than "
        f"{WIDTH} standard errors on {len(names)} of {show.plural(len(largest), 'task')}"
    )
    return text + (f"; not on {show.listed(others)}." if others else ".")
