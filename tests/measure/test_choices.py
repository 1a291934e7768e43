"""Smooth scores of multiple choice, worked out by hand."""

import math
import random

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from llama_bench.measure.evaluation import choices
from llama_bench.measure.evaluation.choices import Item


def item(probabilities, gold=0, sizes=None, texts=None):
    count = len(probabilities)
    return Item(
        tuple(math.log(p) if p else -math.inf for p in probabilities),
        tuple(sizes or [10] * count),
        tuple(texts or map(str, range(count))),
        (gold,),
    )


def rows(items):
    return {row["metric"]: row for row in choices.scores(items)}


def test_smooth_scores_of_one_item_by_hand():
    """Likelihoods of 1/8 and 1/32: shares 0.8 and 0.2. Logs are natural, bits are bits."""
    found = choices.smooth(item([1 / 8, 1 / 32], gold=0, sizes=[4, 7]))
    assert found["gold_bits_per_byte"] == pytest.approx(3 / 4)
    assert found["gold_probability"] == pytest.approx(0.8)
    assert found["gold_margin"] == pytest.approx(2 * math.log(2))
    assert found["brier"] == pytest.approx(0.2**2 + 0.2**2)
    found = choices.smooth(item([1 / 8, 1 / 32], gold=1, sizes=[4, 7]))
    assert found["gold_bits_per_byte"] == pytest.approx(5 / 7)
    assert found["gold_margin"] == pytest.approx(-2 * math.log(2))
    assert found["brier"] == pytest.approx(0.8**2 + 0.8**2)


def test_a_long_answer_is_right_by_its_likelihood_per_character():
    long = item([0.25, 0.5], gold=0, texts=("a seventh", "one"))  # -ln 4 / 9, -ln 2 / 3
    assert not long.right and long.right_by_length
    short = item([0.25, 0.5], gold=0, texts=("a", "one"))
    assert not short.right_by_length
    row = rows([long, short, long, short])["acc_norm"]
    assert (row["value"], row["chance"], row["items"]) == (0.5, 0.5, 4)
    assert row["standard_error"] == pytest.approx(math.sqrt(1 / 3) / 2)


def test_likelihoods_too_small_for_a_float_have_shares_all_the_same():
    found = choices.smooth(Item((-1000.0, -1000.0 - math.log(3)), (1, 1), ("a", "b"), (0,)))
    assert found["gold_probability"] == pytest.approx(0.75)


def test_a_model_that_knows_nothing_has_chance():
    found = rows([item([0.25] * 4, gold=n % 4) for n in range(8)])
    assert found["gold_probability"]["value"] == found["gold_probability"]["chance"] == 0.25
    assert found["brier"]["value"] == pytest.approx(found["brier"]["chance"]) == 0.75
    assert found["gold_margin"]["value"] == 0


def test_a_choice_that_could_not_be_scored_leaves_the_item_out():
    found = rows([item([0.5, 0.5]), item([0.5, 0.0]), item([0.9, 0.1])])
    wrong = found.pop("acc_norm")  # of an accuracy it is wrong, as in lm-eval's
    assert {row["items"] for row in found.values()} == {2}
    assert (wrong["value"], wrong["items"]) == (pytest.approx(2 / 3), 3)
    assert choices.scores([item([0.5, 0.0])]) == []


def test_calibration_error_by_bins():
    sure = np.array([0.55, 0.55, 0.95, 0.95, 1.0])
    right = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    expected = (abs(1.10 - 1) + abs(2.90 - 2)) / 5  # bins 0.5-0.6 and 0.9-1.0
    assert choices.ece(sure, right) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 20_000)
    assert choices.ece(sure, (rng.random(20_000) < sure).astype(float)) < 0.02


def test_classes_are_scored_as_scikit_learn_scores_them():
    rng = random.Random(0)
    texts, items = ("x", "y", "z"), []
    for _ in range(90):
        shares = [rng.random() ** 2 for _ in texts]
        items.append(item(shares, gold=rng.randrange(3), texts=texts))
    golds, given = [i.gold[0] for i in items], [i.given for i in items]
    expected = precision_recall_fscore_support(golds, given, average="macro", zero_division=0)
    found = rows(items)
    for metric, value in zip(
        ("macro_precision", "macro_recall", "macro_f1"), expected, strict=False
    ):
        assert found[metric]["value"] == pytest.approx(value)
        assert 0.02 < found[metric]["standard_error"] < 0.1
    table = {(r["gold_text"], r["given_text"]): r["items"] for r in choices.answers(items)}
    for g, gold in enumerate(texts):
        for a, answer in enumerate(texts):
            count = sum((g, a) == both for both in zip(golds, given, strict=True))
            assert table.get((gold, answer), 0) == count


def test_a_constant_answer_shows():
    """Accuracy of one half, which a fair coin has too; the answers tell them apart."""
    items = [item([0.9, 0.1], gold=n % 2, texts=("yes", "no")) for n in range(10)]
    answers = choices.answers(items)
    assert {row["given_text"] for row in answers} == {"yes"}
    assert sum(row["items"] for row in answers) == 10
    assert rows(items)["macro_f1"]["value"] == pytest.approx((2 / 3 + 0) / 2)


def test_choices_that_differ_are_no_classes():
    items = [item([0.9, 0.1], gold=n % 2, texts=(f"a{n}", f"b{n}")) for n in range(4)]
    assert "macro_f1" not in rows(items)
    assert {row["given_text"] for row in choices.answers(items)} == {None}
