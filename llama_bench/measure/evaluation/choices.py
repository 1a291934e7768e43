"""Scores of multiple choice that tasks do not list: smooth ones, which say what accuracy rounds
away, and accuracy by length.

Accuracy of a small model stays at chance while its log-likelihoods improve all along (Schaeffer et
al. 2023, arXiv 2304.15004), so a study of size needs both. With l the log-likelihood of each choice
in nats and p their softmax over the choices:

gold_bits_per_byte  -l of the right answer over its bytes and ln 2, mean over items (the `task
                    loss` of Bhagia et al. 2024, arXiv 2412.04403, section 2)
gold_probability    p of the right answer
gold_margin         l of the right answer less that of the best wrong one, nats
brier               sum over the choices of (p - [right])^2 (Brier 1950)
acc_norm            share of items whose right answer has the greatest l per character, as lm-eval
                    has it of the tasks that list it; an item that could not be scored is wrong
ece                 expected calibration error: 10 equal bins of the highest p; the mean, by items,
                    of each bin's distance between mean p and share right (Guo et al. 2017, eq. 3)

Where all items have the same choices the task is a classification, and has macro_precision,
macro_recall and macro_f1: means over the classes, 0 for a class where they are not defined. Bytes
are those of what was scored: blanks that went over from the context are in them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from llama_bench.measure.evaluation.standard_errors import mean_error, resampled
from llama_bench.measure.labelled import labels

BINS = 10
OF_CHOICES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
_LN2 = math.log(2)
_LOWER_IS_BETTER = ("gold_bits_per_byte", "brier", "ece")


@dataclass(frozen=True)
class Item:
    """One question: log-likelihoods in nats (-inf where a choice could not be scored), the bytes
    that they are of, the choices' texts, and which of them are right."""

    log_likelihoods: tuple[float, ...]
    scored_bytes: tuple[int, ...]
    choices: tuple[str, ...]
    gold: tuple[int, ...]

    @property
    def scored(self) -> bool:
        return bool(self.gold) and all(map(math.isfinite, self.log_likelihoods))

    @property
    def given(self) -> int:
        """The first of the likeliest choices, as lm-eval takes it."""
        return max(range(len(self.choices)), key=self.log_likelihoods.__getitem__)

    @property
    def right(self) -> bool:
        return self.given in self.gold

    @property
    def right_by_length(self) -> bool:
        """Whether the likeliest choice per character is right; a choice without any is not."""
        each = zip(self.log_likelihoods, self.choices, strict=True)
        per_character = [likelihood / len(text) if text else -math.inf for likelihood, text in each]
        return max(range(len(per_character)), key=per_character.__getitem__) in self.gold

    @property
    def probabilities(self) -> np.ndarray:
        shifted = np.exp(np.array(self.log_likelihoods) - max(self.log_likelihoods))
        return shifted / shifted.sum()


def smooth(item: Item) -> dict[str, float]:
    """The metrics that one item has a value of."""
    likelihoods, p = item.log_likelihoods, item.probabilities
    best = max(item.gold, key=likelihoods.__getitem__)
    wrong = [ll for choice, ll in enumerate(likelihoods) if choice not in item.gold]
    found = {"gold_probability": float(sum(p[choice] for choice in item.gold))}
    if item.scored_bytes[best]:
        found["gold_bits_per_byte"] = -likelihoods[best] / _LN2 / item.scored_bytes[best]
    if wrong:
        found["gold_margin"] = likelihoods[best] - max(wrong)
    if len(item.gold) == 1:
        right = np.eye(len(p))[best]
        found["brier"] = float(((p - right) ** 2).sum())
    return found


def scores(items: list[Item]) -> list[dict]:
    """Rows `{metric, value, standard_error, chance, higher_is_better, items}` of one task."""
    scored = [item for item in items if item.scored]
    if not scored:
        return []
    found = [smooth(item) for item in scored]
    by_length = [float(item.scored and item.right_by_length) for item in items]
    rows = [
        _row("acc_norm", *_mean(by_length), len(items), chance("acc_norm", items)),
    ]
    for metric in ("gold_bits_per_byte", "gold_probability", "gold_margin", "brier"):
        values = [each[metric] for each in found if metric in each]
        if values:
            rows.append(_row(metric, *_mean(values), len(values), chance(metric, scored)))
    sure = np.array([item.probabilities.max() for item in scored])
    right = np.array([item.right for item in scored], dtype=float)
    rows.append(_row("ece", *_whole_and_error(lambda d: ece(sure[d], right[d]), len(scored))))
    return rows + (_of_classes(scored) if is_classification(scored) else [])


def _row(metric: str, value, error, items: int, chance: float | None = None) -> dict:
    return {
        "metric": metric,
        "value": value,
        "standard_error": error,
        "chance": chance,
        "higher_is_better": metric not in _LOWER_IS_BETTER,
        "items": items,
    }


def _mean(values: list[float]) -> tuple[float, float | None]:
    return math.fsum(values) / len(values), mean_error(values)


def _whole_and_error(statistic, items: int) -> tuple[float, float | None, int]:
    return float(statistic(np.arange(items))), resampled(statistic, items), items


def chance(metric: str, items: list[Item]) -> float | None:
    """Of a model that finds all choices equally likely; None where no item says what is right."""
    if not any(item.gold for item in items):
        return None
    if metric in ("gold_probability", *OF_CHOICES):
        return sum(len(item.gold) / len(item.choices) for item in items) / len(items)
    if metric == "brier":
        return sum(1 - 1 / len(item.choices) for item in items) / len(items)
    return None


def ece(sure: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error of how sure a model was and whether it was right."""
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, sure - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(sure))


def is_classification(items: list[Item]) -> bool:
    """Whether all items have the same choices, in the same order, and more than one class."""
    return (
        bool(items)
        and len({item.choices for item in items}) == 1
        and len({item.gold for item in items}) > 1
        and all(len(item.gold) == 1 for item in items)
    )


def _of_classes(items: list[Item]) -> list[dict]:
    classes = len(items[0].choices)
    cells = np.array([item.gold[0] * classes + item.given for item in items])
    rows = []
    for place, metric in enumerate(("macro_precision", "macro_recall", "macro_f1")):

        def statistic(drawn, place=place):
            table = np.bincount(cells[drawn], minlength=classes**2).reshape(classes, classes)
            return of_classes(table)[place]

        rows.append(_row(metric, *_whole_and_error(statistic, len(items))))
    return rows


def of_classes(confusion: np.ndarray) -> tuple[float, float, float]:
    """Macro precision, recall and F1 of counts by gold (rows) and given (columns)."""
    right = np.diag(confusion).astype(float)
    given, gold = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = np.divide(right, given, out=np.zeros_like(right), where=given > 0)
    recall = np.divide(right, gold, out=np.zeros_like(right), where=gold > 0)
    both = np.divide(2 * right, given + gold, out=np.zeros_like(right), where=(given + gold) > 0)
    return float(precision.mean()), float(recall.mean()), float(both.mean())


def answers(items: list[Item]) -> list[dict]:
    """How often each answer was given where each was right: the confusion matrix, in long form.

    Answers are named where all items have the same ones, and otherwise counted by their place. A
    line's end that tells labels apart (labelled/labels.py) is no part of their names.
    """
    items = [item for item in items if item.scored]
    names = items[0].choices if is_classification(items) else ()
    if all(name.endswith("\n") for name in names):
        names = tuple(map(labels.named, names))
    counted = Counter((item.gold[0], item.given) for item in items if len(item.gold) == 1)
    return [
        {
            "gold": gold,
            "given": given,
            "gold_text": names[gold] if names else None,
            "given_text": names[given] if names else None,
            "items": count,
        }
        for (gold, given), count in sorted(counted.items())
    ]
