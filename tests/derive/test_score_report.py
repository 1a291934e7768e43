"""What is said of scores: which differences are more than chance, which answers were given."""

from __future__ import annotations

import math
import random
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
import results_on_paper as results
from scipy import stats
from study_on_paper import Paper, shape_of_size
from test_collect import collected
from test_report import reported

from llama_bench.derive import fit
from llama_bench.derive.figures import drawing
from llama_bench.derive.judging import paired
from llama_bench.derive.tables import evaluated, screen, study_tables
from llama_bench.derive.words import answertext, noisetext, sampletext, scoreledgertext, scores
from llama_bench.fields import UserError
from llama_bench.study import load

TWO = {"50k": 50_000, "700k": 700_000}
NAMES = ("json", "email", "test")


def asked(right: int, of: int = 40, names=None, lean: float = 1.0) -> list[dict]:
    """`of` items of three choices, the first `right` of them answered rightly."""
    items = []
    for number in range(of):
        gold, likelihoods = number % 3, [-5.0, -5.0, -5.0]
        given = gold if number < right else (gold + 1) % 3
        likelihoods[given] += lean
        items.append(results.choice(number, likelihoods, gold, names))
    return items


# paired tests


def test_mcnemar_is_the_sign_test():
    for only_first in range(12):
        for only_second in range(12):
            of = only_first + only_second
            exact = stats.binomtest(only_first, of).pvalue if of else 1.0
            assert paired.mcnemar(only_first, only_second) == pytest.approx(exact, rel=1e-12)


def test_numbers_are_compared_as_scipy_does():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.3, 1, 50), rng.normal(0, 1, 50)
    known = stats.ttest_rel(first, second)
    made = paired.compared(first, second)
    assert made.p == pytest.approx(known.pvalue, rel=1e-9) and made.test == "paired t"
    assert made.difference / made.standard_error == pytest.approx(known.statistic, rel=1e-9)


def test_few_numbers_have_their_signs_flipped_as_scipy_does():
    rng = np.random.default_rng(4)
    for items in (2, 5, 10, 12):
        first, second = rng.exponential(2, items), rng.exponential(1, items)
        known = stats.permutation_test(
            (first, second),
            lambda a, b: np.mean(a - b),
            permutation_type="samples",
            n_resamples=10**5,
        )
        made = paired.compared(first, second)
        assert made.test == "sign flip" and made.p == pytest.approx(known.pvalue, rel=1e-9)


def test_signs_drawn_tell_what_all_of_them_would():
    differences = np.arange(1.0, 21) * np.where(np.arange(20) % 3 == 0, -1, 1)
    ways = {0: 1}  # how many ways have each sum
    for each in range(1, 21):
        ways = {
            total: ways.get(total - each, 0) + ways.get(total + each, 0)
            for total in {*(t + each for t in ways), *(t - each for t in ways)}
        }
    far = abs(differences.sum())
    exact = sum(count for total, count in ways.items() if abs(total) >= far) / 2**20
    assert paired.sign_flip(differences) == pytest.approx(exact, abs=3 * (exact / 9_999) ** 0.5)
    assert paired.sign_flip(differences) == paired.sign_flip(differences)


def test_five_items_cannot_tell_more_than_their_signs():
    """The t test would: five differences that are nearly alike have next to no standard error."""
    better = np.array([0.2, 0.21, 0.2, 0.19, 0.2])
    made = paired.compared(better, np.zeros(5))
    assert made.p == 2 / 2**5 and stats.ttest_1samp(better, 0).pvalue < 1e-5
    assert paired.compared(better, better).p == 1.0
    assert paired.compared(better[:1], np.zeros(1)).p is None


def test_shares_of_few_items_have_wilsons_interval():
    for right, of in ((0, 20), (1, 20), (10, 20), (20, 20), (3, 1000)):
        known = stats.binomtest(right, of).proportion_ci(0.95, method="wilson")
        low, high = scores.interval("acc", right / of, 0.0, of)
        assert (low, high) == pytest.approx((known.low, known.high), abs=2e-5)  # WIDTH is rounded
        assert 0 <= low <= right / of <= high <= 1
    assert scores.interval("bits_per_byte", 2.0, 0.1, 50) == pytest.approx((1.804, 2.196))
    assert scores.interval("token_f1", 0.02, 0.02, 50) == pytest.approx((0, 0.0592))
    assert scores.interval("acc", 0.5, None, None) is scores.interval("chrf", 3, None, 5) is None


def test_what_has_bounds_stays_within_them():
    low, high = scores.interval("chrf", 1.5, 2.0, 30)
    assert low == 0.0 and high == pytest.approx(1.5 + 1.96 * 2)
    assert scores.interval("chrf", 99.0, 2.0, 30)[1] == 100.0
    assert scores.interval("gold_margin", 0.1, 2.0, 30)[0] < 0  # has none
    assert scores.bounds("f1", [0.2, 45.0]) == (-math.inf, math.inf)  # another one: of a hundred
    figure, ax = drawing.axes()
    ax.plot([1, 2], [0.0, 2.0], "o")
    assert ax.get_ylim()[0] < 0
    drawing.bounded(ax, *scores.bounds("token_f1", [0.0, 0.9]))
    assert ax.get_ylim() == (0.0, 1.0)
    plt.close(figure)


def test_the_chance_level_says_what_it_is():
    assert "best constant answer" in scores.chance_means(["acc", "acc_norm"], True)
    assert "commonest answer" in scores.chance_means(["exact_match"], True)
    assert "even guess" in scores.chance_means(["acc"], False)
    assert "constant" not in scores.chance_means(["acc"], False)


def test_ratios_weigh_items_by_what_they_are_of():
    """Nats over bytes: a difference that is the same per byte everywhere has no error."""
    weight = np.array([10.0, 400.0, 55.0, 1000.0])
    second = np.array([3.0, 7.0, 1.0, 20.0])
    made = paired.compared(second + 0.25 * weight, second, weight)
    assert made.difference == pytest.approx(0.25) and made.standard_error == pytest.approx(
        0, abs=1e-12
    )


def test_holm_is_the_published_example():
    """Four hypotheses with p of 0.01, 0.04, 0.03 and 0.005."""
    made = paired.holm([0.01, 0.04, None, 0.03, 0.005])
    assert made == pytest.approx([0.03, 0.06, None, 0.06, 0.02])


def test_models_that_do_not_differ_seldom_seem_to():
    rng = np.random.default_rng(3)
    seem = 0
    for _ in range(400):
        hard = rng.uniform(size=120)  # the same items are hard for both
        first, second = (rng.uniform(size=120) > hard for _ in range(2))
        seem += paired.compared(first.astype(float), second.astype(float)).p < paired.LEVEL
    assert seem / 400 < 0.06


def test_a_pair_is_of_the_same_items(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    paper.answer("50k", 800_000, asked(10))
    changed = asked(31)
    for row in changed[0]["rows"]:  # another question under the same number is no match
        row["doc_hash"] = "another"
    paper.answer("700k", 800_000, changed)
    right, bits, smooth = collected(paper)["pairs"]
    assert (right["metric"], right["test"], right["items"]) == ("acc", "McNemar", 39)
    assert (right["model"], right["against"]) == ("700k", "50k")
    assert (right["only_model"], right["only_against"]) == (21, 0)
    assert right["difference"] == pytest.approx(21 / 39)
    assert right["p"] == pytest.approx(2 * 0.5**21) and right["told_apart"]
    assert (smooth["metric"], smooth["test"]) == ("gold_probability", "paired t")
    sure, other = math.e / (math.e + 2), 1 / (math.e + 2)
    assert smooth["difference"] == pytest.approx(21 / 39 * (sure - other))
    # a right answer is a nat likelier, and has four bytes
    assert bits["metric"] == "gold_bits_per_byte"
    assert bits["difference"] == pytest.approx(-21 / 39 / 4 / math.log(2))


def test_the_largest_budget_is_compared_and_what_stands_beside_the_ladder_is_not(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    for label in TWO:
        paper.answer(label, 200_000, asked(5))
        paper.answer(label, 800_000, asked(20))
        paper.answer(label, 800_000, asked(1), named={"state": "trunk"})
        paper.answer(label, 800_000, asked(2), named={"data": "other"})
    found = collected(paper)
    assert [(row["budget"], row["difference"], row["p"]) for row in found["pairs"]] == [
        (800_000, 0.0, 1.0)
    ] * 3
    assert {row["state"] for row in found["scores"]} == {None, "trunk"}
    kept = study_tables.own_ladder(study_tables.read(tmp_path / "tables" / "runs.parquet"))
    assert len(kept["scores"]) == 2 * 2 * 3


def test_seeds_of_a_size_are_one_model(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    for seed, right in enumerate((10, 20)):
        paper.answer("50k", 800_000, asked(10), seed)
        paper.answer("700k", 800_000, asked(right), seed)
    right = collected(paper)["pairs"][0]
    assert (right["seeds"], right["test"]) == (2, "paired t")
    assert right["difference"] == pytest.approx((15 - 10) / 40)


def test_three_sizes_have_their_neighbours_and_the_widest_pair(tmp_path):
    paper = Paper(tmp_path, sizes={"50k": 50_000, "120k": 120_000, "700k": 700_000})
    for label, right in zip(paper.sizes, (10, 14, 35), strict=True):
        paper.answer(label, 800_000, asked(right))
    rows = [row for row in collected(paper)["pairs"] if row["metric"] == "acc"]
    assert [(row["against"], row["model"], row["neighbours"]) for row in rows] == [
        ("50k", "120k", True),
        ("120k", "700k", True),
        ("50k", "700k", False),
    ]
    assert [row["told_apart"] for row in rows] == [False, True, True]
    assert all(row["p_adjusted"] >= row["p"] for row in rows)
    said = " ".join(noisetext.words(study_tables.read(tmp_path / "tables" / "runs.parquet")))
    assert "700k differs from 50k by more than chance on 1 of 1 task (choose)" in said
    assert "of neighbouring sizes, 1 of 2 differences are" in said
    text = reported(paper).read_text()
    assert "within noise, p " in text and "50k → 120k" in text


def test_damaged_items_are_named(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    folder = paper.answer("50k", 800_000, asked(10))
    (folder / "items.parquet").write_text("no table")
    with pytest.raises(UserError, match=r"items\.parquet: is no table of items .*delete the run"):
        collected(paper)


def test_bits_per_byte_are_compared_as_ratios(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    sizes = (10, 500, 40)
    for label, rate in (("50k", 3.0), ("700k", 2.0)):
        nats = [rate * size * math.log(2) for size in sizes]
        about = {"task": "text", "filter": "none", "choice": 0, "gold": None}
        rows = [
            about
            | {"doc_id": i, "doc_hash": str(i), "bytes": sizes[i], "log_likelihood": -nats[i]}
            | {"statistics": [{"metric": "bits_per_byte", "sums": [-nats[i], sizes[i]]}]}
            for i in range(3)
        ]
        score = {"task": "text", "metric": "bits_per_byte", "filter": "none", "value": rate}
        item = {"rows": rows, "gold": 0, "given": 0, "names": None, "scores": {"acc": 0.0}}
        folder = paper.answer(label, 800_000, [item, item])
        rewrite(folder, scores=[score | {"higher_is_better": False}], answers=[])
        write_items(folder, rows)
    (row,) = collected(paper)["pairs"]
    assert row["metric"] == "bits_per_byte" and row["difference"] == pytest.approx(-1.0)
    assert row["standard_error"] == pytest.approx(0, abs=1e-9)


def rewrite(folder, **changed) -> None:
    from llama_bench import records

    record = records.read(folder / "record.json")
    record.result.update(changed)
    record.write(folder / "record.json")


def write_items(folder, rows) -> None:
    pandas.DataFrame(rows).to_parquet(folder / "items.parquet")


# signal and noise


def scored(values, **more) -> list[dict]:
    """Rows of `scores`, from {(model, budget, seed): value}."""
    about = {"suite": "s", "task": "t", "metric": "acc", "filter": "none", "origin": "trained"}
    return [
        study_tables.row(
            "scores",
            **(about | {"standard_error": 0.05} | more),
            model=model,
            budget=budget,
            seed=seed,
            value=value,
            parameters_without_embeddings=int(model),
        )
        for (model, budget, seed), value in values.items()
    ]


def screened(scores, over="sizes", pairs=()) -> dict:
    (row,) = (row for _, row in screen.rows(scores, list(pairs)) if row["over"] == over)
    return row


def test_signal_over_noise_of_seeds_is_as_defined():
    values = {("100", 1000, 0): 0.30, ("100", 1000, 1): 0.34, ("100", 500, 0): 0.1}
    values |= {("200", 1000, 0): 0.50, ("200", 1000, 1): 0.56}
    row = screened(scored(values))
    assert row["signal"] == pytest.approx(0.53 - 0.32)
    pooled = math.sqrt((2 * 0.02**2 + 2 * 0.03**2) / 2)
    assert row["noise"] == pytest.approx(pooled / math.sqrt(2))
    assert (row["noise_source"], row["freedom"]) == ("seeds", 2)
    # for two levels the studentised range is the t distribution's quantile times the root of two
    assert row["needed"] == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(2), rel=1e-3)


def test_without_seeds_noise_is_that_of_items_or_of_checkpoints_whichever_is_larger():
    exact = {
        (model, budget, 0): 0.1 * math.log(budget) for model in "123" for budget in (10, 20, 40)
    }
    row = screened(scored(exact))
    assert (row["noise_source"], row["noise"], row["freedom"]) == ("items", 0.05, None)
    assert row["noise_checkpoints"] == pytest.approx(0, abs=1e-12)
    # a bend that all sizes share is no noise; what one does alone is
    bent = {place: value + 0.3 * (place[1] == 20) for place, value in exact.items()}
    assert screened(scored(bent))["noise_checkpoints"] == pytest.approx(0, abs=1e-12)
    row = screened(scored(bent | {("1", 20, 0): 2.9}))
    assert row["noise_source"] == "checkpoints" and row["noise"] > 0.2 and row["freedom"] == 2
    pair = dict(zip(screen.KEYS, ("s", "t", "acc", "none"), strict=True))
    pair |= {"origin": "trained", "standard_error": 0.002}
    assert screened(scored(exact), pairs=[pair])["noise"] == pytest.approx(0.002 / math.sqrt(2))


def test_a_signal_beside_no_noise_is_not_judged():
    """Every item of every model went one way: the noise is unknown, and not zero."""
    values = {("1", 10, 0): 0.0, ("2", 10, 0): 1.0}
    row = screened(scored(values, standard_error=0.0))
    assert (row["signal"], row["ratio"], row["told_apart"]) == (1.0, None, None)
    assert not screened(scored(dict.fromkeys(values, 0.0), standard_error=0.0))["told_apart"]


def test_scores_that_never_change_have_no_noise_of_checkpoints():
    same = {(model, budget, 0): 0.1 for model in "1234" for budget in (10, 20, 40)}
    row = screened(scored(same, standard_error=0.0))
    assert row["noise_checkpoints"] == 0.0 and row["ratio"] is None


def test_equal_models_are_seldom_told_apart_and_different_ones_are():
    rng = np.random.default_rng(0)
    for spread, low, high in ((0.0, 0.02, 0.08), (0.2, 0.99, 1.0)):
        told = 0
        for _ in range(400):
            values = {
                (str(100 + size), 1000, seed): 0.5 + spread * size + rng.normal(0, 0.05)
                for size in range(4)
                for seed in range(3)
            }
            told += screened(scored(values))["told_apart"]
        assert low <= told / 400 <= high


def test_scores_that_are_all_the_same_tell_nothing_apart():
    row = screened(scored({("1", 10, 0): 0.0, ("2", 10, 0): 0.0}, standard_error=0.0))
    assert row["told_apart"] is False and row["ratio"] is None


def test_a_mark_is_explained_of_the_columns_that_have_it():
    assert noisetext.mark(["Model", "cloze †", "bits per byte"]).endswith("sizes apart: cloze.")
    assert noisetext.mark(["Model", "cloze"]) == ""


def test_a_task_of_its_metrics_name_is_named_once():
    names = [scores.task_name(task) for task in ("heldout_bits_per_byte", "heldout_cloze")]
    assert scores.title(names[0], "bits_per_byte") == "bits per byte"
    assert scores.title(names[1], "acc") == "cloze: accuracy"


def test_a_task_that_tells_nothing_is_marked_and_not_dropped(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    for label, right in zip(TWO, (20, 21), strict=True):
        paper.answer(label, 800_000, asked(right))
    text = reported(paper).read_text()
    assert "† cannot tell these sizes apart: choose." in text and "choose †" in text
    assert "0 of 1 task can tell the sizes apart at this scale" in text
    assert 'id="figure-score-heldout-choose-acc"' in text
    assert "At this scale the sizes cannot be told apart by it." in text


# answers


def test_precision_and_recall_are_those_of_the_confusion_matrix():
    counts = {(0, 0): 8, (0, 1): 2, (1, 1): 5, (1, 0): 5, (2, 0): 3}
    answers = [
        {"task": "t", "gold": gold, "given": given, "items": count}
        | {"gold_text": NAMES[gold], "given_text": NAMES[given]}
        for (gold, given), count in counts.items()
    ]
    rows = {row["answer"]: row for row in evaluated.classes(answers)}
    assert rows["json"]["precision"] == 8 / 16 and rows["json"]["recall"] == 8 / 10
    assert rows["email"]["precision"] == 5 / 7 and rows["email"]["recall"] == 5 / 10
    assert rows["email"]["f1"] == pytest.approx(stats.hmean([5 / 7, 5 / 10]))
    assert rows["test"]["precision"] is None and rows["test"]["recall"] == 0
    assert (rows["test"]["items"], rows["test"]["given"]) == (3, 0)


def test_a_constant_answer_is_named(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    constant = [results.choice(i, [-1.0, -3.0, -3.0], i % 3, NAMES) for i in range(30)]
    paper.answer("50k", 800_000, constant)
    paper.answer("700k", 800_000, asked(30, 30, NAMES))
    collected(paper)
    tables = study_tables.read(tmp_path / "tables" / "runs.parquet")
    (said,) = answertext.words(tables)
    assert "50k in choose (“json” for 100 %, right for 33 %)" in said and "700k" not in said
    (task,) = answertext.confusions(tables)
    first, second = task["models"]
    assert first["names"] == [*NAMES] and first["precision"] == ["33 %", "–", "–"]
    assert [cell["count"] for cell in second["rows"][0]["cells"]] == ["10", "0", "0"]
    text = reported(paper).read_text()
    assert "Which answer was given for which: choose" in text


def test_models_with_the_same_constant_answer_are_named_together(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    constant = [results.choice(i, [-1.0, -3.0, -3.0], i % 3, NAMES) for i in range(30)]
    for label in TWO:
        paper.answer(label, 800_000, constant)
    collected(paper)
    (said,) = answertext.words(study_tables.read(tmp_path / "tables" / "runs.parquet"))
    assert "50k and 700k in choose (“json” for 100 %, right for 33 %)." in said


def test_what_was_cut_is_said(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    for label, cut in zip(TWO, (3, 5), strict=True):
        folder = paper.answer(label, 800_000, asked(20))
        counts = {"unscored": 0, "truncated": cut, "respelled": 0, "lossy": 2 * (label == "50k")}
        scores = [row | counts for row in results.scores_of(asked(20))]
        rewrite(folder, scores=scores)
    assert (
        "Not every request (a question with one of its answers) was scored as it stands. Without "
        "their beginning, which the model’s window had no room for: choose (2 "
        "evaluations, 3 to 5 of each); in the tokenizer’s version of a text that it does not give "
        "back as it was: choose (1 evaluation, 2 of each)."
    ) in reported(paper).read_text().replace("&#39;", "’")
    paper = Paper(tmp_path / "whole", sizes=TWO)
    for label in TWO:
        paper.answer(label, 800_000, asked(20))
    assert "Not every request" not in reported(paper).read_text()


def test_tasks_have_one_name_throughout(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    for label, right in zip(TWO, (10, 30), strict=True):
        items = [
            results.choice(n, [-1.0, -3.0, -3.0], int(n >= right), task="heldout_two_words")
            for n in range(40)
        ]
        paper.answer(label, 800_000, items)
    text = re.sub(r"<svg.*?</svg>", "", reported(paper).read_text(), flags=re.DOTALL)
    text = text.replace('id="figure-score-heldout-heldout_two_words', "")  # an address, not a name
    told = text[text.index('id="tasks"') : text.index('id="making"')]
    assert "two words: accuracy" in told and "heldout_two_words" not in told
    assert scores.task_name("finetune_reviews") == "reviews"


def test_a_larger_model_that_is_worse_is_called_so(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    for label, right in zip(TWO, (30, 5), strict=True):
        paper.answer(label, 800_000, asked(right))
    collected(paper)
    said = " ".join(noisetext.words(study_tables.read(tmp_path / "tables" / "runs.parquet")))
    assert "on 1 of 1 task (choose; worse on choose)" in said
    assert "By what right or wrong rounds away they differ in bits per byte of the right" in said


def test_why_there_is_no_forecast_is_said_in_words():
    point = {"state": "none", "task": "heldout_part", "metric": "acc", "runs_used": 12}
    point["why"] = "all 12 runs have the same acc, 0.25"
    said = scoreledgertext.words([point])[-1]
    assert said.endswith("part (all 12 runs have the same accuracy, 0.25).")
    shown = [scoreledgertext._signed(error) for error in (0.0321, -1e-17, -0.5, None)]
    assert shown == ["+0.032", "0", "−0.50", "–"]


# figures and texts


def test_a_smooth_score_stands_beside_accuracy_and_the_rest_in_the_table(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    for label in TWO:
        for budget in (200_000, 800_000):
            paper.answer(label, budget, asked(10 if label == "50k" else 30))
    text = reported(paper).read_text()
    names = re.findall(r'id="figure-((?:score|tokens)-[^"]+)"', text)
    assert names == [
        "score-heldout-choose-acc",
        "score-heldout-choose-gold_bits_per_byte",
        "tokens-choose-acc",
    ]
    assert "gold_probability" in text


def test_states_stand_where_the_trunk_stood(tmp_path):
    paper = Paper(tmp_path, sizes=TWO).ladder()
    for label in TWO:
        paper.answer(label, 800_000, asked(20))
        paper.answer(label, 800_000, asked(15), named={"state": "trunk"})
    text = reported(paper).read_text()
    assert "Hollow: the same training before its rate decayed (trunk)" in text
    assert text.count('id="figure-score-') == 2  # the ends alone


def test_greedy_and_drawn_texts_stand_side_by_side(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    for label in TWO:
        folder = paper.answer(label, 800_000, asked(20))
        texts = {"greedy": None, "temperature 0.8": 0}
        samples = [
            {"prompt": "import", "text": f" {way} of {label}", "decoding": way, "seed": seed}
            for way, seed in texts.items()
        ]
        rewrite(folder, samples=samples)
    text = reported(paper).read_text()
    places = [
        text.index(f"{way} of {label}") for label in TWO for way in ("greedy", "temperature 0.8")
    ]
    assert places == sorted(places)
    assert text.count('<div class="ways">') == 2


def test_many_empty_lines_are_told_by_their_number():
    rows = {"model": "50k", "budget": 8e5, "size": 5e4, "way": ["greedy"]}
    row = pandas.DataFrame(rows | {"text": [":\n\n\n    a" + "\n" * 30 + "b"]})
    (text,) = sampletext._model(row, ["greedy"])["texts"]
    assert text == ":\n\n\n    a\n⏎ × 30\nb"


# the law of scores


def test_the_task_ladder_has_the_means_over_common_tasks(tmp_path):
    paper = Paper(tmp_path, sizes=TWO, budgets=(800_000,)).ladder()
    for label, right in zip(TWO, (10, 30), strict=True):
        paper.answer(label, 800_000, asked(right))
    rows = collected(paper)["task_ladder"]
    assert [(row["model"], row["accuracy"], row["tasks"]) for row in rows] == [
        ("50k", 0.25, 1),
        ("700k", 0.75, 1),
    ]
    assert {(row["chance"], row["ceiling"]) for row in rows} == {(1 / 3, 1.0)}
    assert rows[0]["task_loss"] > rows[1]["task_loss"] > 0


def test_a_sigmoid_between_known_ends_finds_its_middle():
    """direct and two_step return what was put in, with the ends that the table names."""
    rng = random.Random(0)
    rows = []
    for params in (2e4, 6e4, 2e5, 6e5):
        for tokens in (2e5, 6e5, 2e6):
            flops = 6 * params * tokens
            loss = 1 + 30 / flops**0.1
            share = 0.25 + 0.75 / (1 + (1e12 / flops) ** 0.5)
            rows.append({"params": params, "tokens": tokens, "flops": flops, "task_loss": loss})
            rows[-1] |= {"accuracy": share + rng.gauss(0, 0.002), "chance": 0.25, "ceiling": 1.0}
    made = fit.fit_table(pandas.DataFrame(rows), {"law": "direct", "draws": 100, "starts": 24})
    assert made["settings"]["chance"] == 0.25 and made["settings"]["ceiling"] == 1.0
    assert set(made["parameters"]) == {"k", "C_mid"} and made["status"] == "converged"
    assert made["parameters"]["k"]["value"] == pytest.approx(0.5, rel=0.05)
    assert made["parameters"]["C_mid"]["value"] == pytest.approx(1e12, rel=0.1)


def test_a_study_without_common_tasks_has_a_fit_that_says_so(tmp_path):
    collected(Paper(tmp_path).ladder())
    table = tmp_path / "tables" / "task_ladder.parquet"
    for law in ("direct", "two_step"):
        fit.run(law, tmp_path / f"{law}.json", [table])
        assert '"status": "too-few-points"' in (tmp_path / f"{law}.json").read_text()
    paper = Paper(tmp_path / "other")
    paper.train("50k", shape_of_size(50_000), 200_000)
    assert "A law of scores" not in reported(paper).read_text()


def test_a_law_of_scores_needs_something_to_evaluate():
    asked = {
        "models": {"train": [{"size": size} for size in ("10k", "20k", "30k")]},
        "train": {"budgets": ["30k", "60k", "90k"], "warmup_tokens": "4k", "context": 128},
    }
    assert load(asked).laws == ["chinchilla", "direct", "two_step"]
    without = asked | {"evaluate": {"suites": {}}}
    assert load(without).laws == ["chinchilla"]
    with pytest.raises(UserError, match=r"fit\.laws: direct is of task scores; give evaluate"):
        load(without | {"fit": {"laws": ["direct"]}})
