"""What a fine-tuning must beat to be worth anything: frozen features, and the commonest answer.

Frozen features: logistic regression on the mean of the base's hidden states over the prompt, each
of them standardised by the training part; its penalty is what the validation part likes best
(Alain and Bengio 2016, arXiv 1610.01644). Where that does as well, the base knew the task already.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch

from llama_bench.measure.evaluation.choices import of_classes
from llama_bench.measure.tuning.answers import Part

PENALTIES = tuple(10.0**power for power in range(-4, 2))  # scikit-learn's C, the strongest first
ITERATIONS = 300


def majority(parts: dict[str, Part], choices: list[str] | None) -> dict[str, Any]:
    """The commonest training answer (the first of them), given to every test question."""
    counts = Counter(parts["train"].answers)
    most = max(counts.values())
    label = next(answer for answer in choices or counts if counts[answer] == most)
    gold = parts["test"].answers
    right = float(np.mean([answer == label for answer in gold]))
    if not choices:
        return {"label": label.strip(), "accuracy": right}
    f1 = _scores(gold, [label] * len(gold), choices)["macro_f1"]
    return {"label": label, "accuracy": right, "macro_f1": f1}


def frozen(
    model, parts: dict[str, Part], choices: list[str], rows: int
) -> tuple[dict[str, Any], list[str]]:
    """Scores on the test part, and what was answered there; `rows` prompts at a time."""
    features = {name: _means(model, part, rows) for name, part in parts.items()}
    centre, spread = features["train"].mean(0), features["train"].std(0)
    spread[spread == 0] = 1.0
    features = {name: (each - centre) / spread for name, each in features.items()}
    labels = {
        name: np.array([choices.index(a) for a in part.answers]) for name, part in parts.items()
    }
    given = _answered(features, labels)
    answered = [choices[place] for place in given]
    return _scores(parts["test"].answers, answered, choices), answered


def _answered(features: dict, labels: dict) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(set(labels["train"])) == 1:
        return np.full(len(labels["test"]), labels["train"][0])
    best, found = -1.0, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty is stopped early
        for penalty in PENALTIES:
            tried = LogisticRegression(C=penalty, max_iter=ITERATIONS)
            tried.fit(features["train"], labels["train"])
            right = tried.score(features["validation"], labels["validation"])
            if right > best:  # of equals the strongest penalty
                best, found = right, tried
    return found.predict(features["test"])


def _scores(gold: list[str], given: list[str], choices: list[str]) -> dict[str, Any]:
    table = np.zeros((len(choices), len(choices)), dtype=np.int64)
    for wanted, answer in zip(gold, given, strict=True):
        table[choices.index(wanted), choices.index(answer)] += 1
    precision, recall, f1 = of_classes(table)
    return {
        "accuracy": float(np.diag(table).sum() / table.sum()),
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
        "items": len(gold),
    }


@torch.inference_mode()
def _means(model, part: Part, rows: int) -> np.ndarray:
    """Last hidden states, averaged over each prompt's tokens: (examples, width)."""
    means: list[np.ndarray | None] = [None] * len(part)
    for numbers in part.batches(rows):
        inputs, _ = part.batch(numbers)
        lengths = torch.tensor([part.examples[number].start for number in numbers])
        hidden = model.base_model(input_ids=inputs.to(model.device), use_cache=False)
        inside = torch.arange(inputs.shape[1])[None] < lengths[:, None]
        weights = (inside / lengths[:, None]).to(model.device)
        found = (hidden.last_hidden_state.float() * weights[..., None]).sum(1)
        for number, mean in zip(numbers, found.double().cpu().numpy(), strict=True):
            means[number] = mean
    return np.stack(means)
