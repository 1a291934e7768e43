"""Standard errors, against resampling, against lm-eval's own, and by hand."""

import math
import random

import pytest
from lm_eval.api import metrics
from lm_eval.api.registry import get_aggregation

from llama_bench.measure.evaluation import standard_errors


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
    assert standard_errors.ratio_error(amounts, weights) == pytest.approx(resampled, rel=0.1)


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
    found = standard_errors.of_metric(metric, value, values, None)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_resampling_a_mean_gives_the_error_of_a_mean():
    rng = random.Random(1)
    values = [float(rng.random() < 0.3) for _ in range(400)]
    resampled = standard_errors.resampled(lambda d: sum(values[i] for i in d) / 400, 400)
    assert resampled == pytest.approx(standard_errors.mean_error(values), rel=0.25)
    assert resampled == standard_errors.resampled(lambda d: sum(values[i] for i in d) / 400, 400)


def test_a_metric_that_is_no_mean_has_the_bootstraps_error():
    rng = random.Random(2)
    pairs = [(g, g if rng.random() < 0.8 else 1 - g) for g in rng.choices((0, 1), k=150)]
    aggregate = get_aggregation("f1")
    found = standard_errors.of_metric("f1", aggregate(pairs), pairs, aggregate)
    theirs = metrics._bootstrap_internal(aggregate, 200)((0, pairs))
    mean = sum(theirs) / len(theirs)
    spread = math.sqrt(sum((each - mean) ** 2 for each in theirs) / len(theirs))
    assert found == pytest.approx(spread, rel=0.3)


@pytest.mark.parametrize("metric", ["chrf", "bleu", "ter"])
def test_corpus_scores_are_resampled_by_segments(metric):
    """N-grams are counted once; the long way, scoring every draw anew, says the same."""
    rng = random.Random(3)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "dog", "near", "it"]
    pairs = []
    for _ in range(30):
        gold = rng.choices(words, k=9)
        given = [word if rng.random() < 0.7 else rng.choice(words) for word in gold]
        pairs.append([" ".join(gold), " ".join(given)])
    aggregate = get_aggregation(metric)
    value = aggregate(pairs)
    short = standard_errors._of_corpus(metric, pairs)
    long = standard_errors.resampled(lambda drawn: aggregate([pairs[i] for i in drawn]), 30)
    assert short == pytest.approx(long, rel=1e-6)
    assert standard_errors.of_metric(metric, value, pairs, aggregate) == short > 0


def test_a_groups_error_follows_from_its_tasks():
    parts = [(0.5, 0.05, 100), (0.8, 0.02, 300)]
    by_items = standard_errors.of_weighted_means(0.725, parts)
    assert by_items == pytest.approx(math.hypot(0.05 * 0.25, 0.02 * 0.75))
    evenly = standard_errors.of_weighted_means(0.65, parts)
    assert evenly == pytest.approx(math.hypot(0.05, 0.02) / 2)
    assert standard_errors.of_weighted_means(0.7, parts) is None
