"""How task scores are read: which metric tells a task, what chance is, what an error bar means."""

from __future__ import annotations

from llama_bench.derive.words import show

METRICS = {
    "acc": "accuracy",
    "acc_norm": "accuracy, length-normalised",
    "exact_match": "exact match",
    "bits_per_byte": "bits per byte",
    "f1": "F1",
}
WIDTH = 1.96  # standard errors: a 95 % interval of a normal mean
KEYS = ["suite", "task", "metric", "filter"]
# the same number as bits per byte in another dress, where that stands beside them
_REDUNDANT = ("word_perplexity", "byte_perplexity")


def told(tables):
    """The rows of `scores` that have a value and say something that no other row says."""
    scores = tables["scores"].dropna(subset=["value"])
    known = set(scores.loc[scores["metric"] == "bits_per_byte", "task"])
    return scores[~(scores["metric"].isin(_REDUNDANT) & scores["task"].isin(known))]


def main(tables):
    """Of those, one metric per task: the task's own, else the first in the order of METRICS."""
    scores = told(tables)
    own = dict(zip(tables["tasks"]["task"], tables["tasks"]["metric"], strict=True))
    order = list(METRICS)
    best = {}
    for task, rows in scores.groupby("task"):
        metrics = sorted(
            rows["metric"].unique(), key=lambda m: (order.index(m) if m in order else 99, m)
        )
        best[task] = own[task] if own.get(task) in metrics else metrics[0]
    return scores[scores["metric"] == scores["task"].map(best)]


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
