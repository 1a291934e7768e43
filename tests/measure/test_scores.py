"""Standard errors, against resampling and by hand."""

import math
import random

import pytest

from llama_bench.measure import scores


def test_ratio_error_is_what_resampling_says():
    rng = random.Random(0)
    weights = [rng.uniform(50, 500) for _ in range(200)]
    amounts = [weight * rng.gauss(2, 0.4) for weight in weights]
    ratios = []
    for _ in range(2000):
        drawn = rng.choices(range(200), k=200)
        ratios.append(sum(amounts[i] for i in drawn) / sum(weights[i] for i in drawn))
    mean = sum(ratios) / len(ratios)
    resampled = math.sqrt(sum((ratio - mean) ** 2 for ratio in ratios) / len(ratios))
    assert scores.ratio_error(amounts, weights) == pytest.approx(resampled, rel=0.1)


@pytest.mark.parametrize(
    "metric, value, values, expected",
    [
        ("acc", 0.5, [1, 0, 1, 0], math.sqrt(0.25 / 3)),
        ("acc", 0.5, [1], None),
        ("bits_per_byte", 1.0, [(-2.0, 2), (-4.0, 4)], 0.0),
        ("perplexity", math.exp(1.5), [-1.0, -2.0], math.exp(1.5) * 0.5),
        ("f1", 0.7, [(0, 1), (1, 1)], None),
        ("mcc", 0.1, [1, 0, 1, 0], None),
    ],
)
def test_standard_errors_by_metric(metric, value, values, expected):
    found = scores.standard_error(metric, value, values)
    assert found == (expected if expected is None else pytest.approx(expected))
