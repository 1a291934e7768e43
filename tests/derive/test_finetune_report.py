"""What the report says of fine-tuning: the gains that were put in, and no others."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
from finetuning_on_paper import BUDGET, COUNTS, ITEMS, LABELS, Tunings, accuracy
from pages_on_paper import drawn, page, tabled
from pyarrow import parquet
from study_on_paper import Paper, shape_of_size

from llama_bench import overlaps
from llama_bench.derive.figures import drawing, finetuning
from llama_bench.derive.tables import study_tables
from llama_bench.derive.words import (
    finetune_table,
    finetuned,
    finetunetext,
    finetunings,
    measured,
    scores,
)
from llama_bench.derive.words.measured import Number

THREE = {"50k": 50_000, "300k": 300_000, "1.6M": 1_600_000}
TWO = {"50k": 50_000, "700k": 700_000}
TABLES = ("examples", "labels", "exclusions", "finetunings", "tuning_curves", "gains")


def tuned(root, name="part", sizes=TWO, **how) -> Paper:
    paper = Paper(root, sizes=sizes, budgets=(BUDGET,)).ladder()
    Tunings(paper).whole(name, **how)
    return paper


def plain(root) -> Paper:
    return Paper(root, sizes=THREE, budgets=(200_000, BUDGET)).whole()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Both tasks, by both methods, one run of which diverged; with its tables, figures and page."""
    paper = plain(tmp_path_factory.mktemp("tuned"))
    Tunings(paper).whole("part", methods=("full", "lora")).whole("docstring", fractions=(1.0,))
    Tunings(paper).tuned("part", "50k", seed=1, status="diverged", reason="the loss is not finite")
    text, tables = page(paper), study_tables.read(paper.root / "tables" / "runs.parquet")
    index = json.loads((paper.root / "figures" / "index.json").read_text())
    return {"paper": paper, "tables": tables, "page": text, "index": index}


def rights(right: float) -> int:
    return round(right * ITEMS)


def test_every_run_is_a_row_with_its_counts_and_what_it_is_held_against(study):
    rows = study["tables"]["finetunings"].set_index("run")
    assert len(rows) == 3 * 3 * 3 + 3 * 2 + 1
    row = rows.loc["300k-part-0.25-lora-s0"]
    about = [row[name] for name in ("model", "origin", "budget", "method")]
    assert about == ["300k", "trained", BUDGET, "lora"]
    assert (row["examples"], row["test_examples"], row["answer_tokens"]) == (200, ITEMS, 2400)
    assert row["base"] == f"300k-{BUDGET}-s0" and row["rank"] == 8 and row["seconds_total"] == 10
    assert row["frozen_accuracy"] == 0.35 and row["majority_label"] == " asyncio"
    assert row["before_test_loss"] == 3.1 and row["forgetting_tokens"] == 40_960
    assert math.isclose(row["forgetting_loss_after"], row["forgetting_loss_before"])
    zero = rows.loc["300k-part-1-full-zero-s0"]
    assert zero["from_zero"] and zero[["base", "forgetting_loss_after"]].isna().all()
    lost = rows.loc["50k-part-1-full-s1"]
    assert lost["status"] == "diverged" and np.isnan(lost["steps"])


def test_examples_labels_and_what_was_left_out_are_counted(study):
    tables = study["tables"]
    examples = tables["examples"].set_index(["finetune", "part"])
    assert examples["examples"].to_dict() == {
        (name, part): count for name in ("part", "docstring") for part, count in COUNTS.items()
    }
    assert tables["labels"].groupby("part")["examples"].sum()["train"] == COUNTS["train"]
    left = tables["exclusions"].groupby(["verb", "reason"])["examples"].max()
    assert left.to_dict() == {
        ("examples", "a repeated example"): 7,
        ("finetune", "too long for the context"): 3,
    }
    assert set(tables["tuning_curves"]["step"]) == {10, 20}


def test_gains_are_those_of_the_same_items(study):
    gains = study["tables"]["gains"].query("metric == 'acc' and method == 'full'")
    assert set(gains["against"]) == {"before", "from zero"}
    for row in gains.query("against == 'before'").itertuples():
        size = shape_of_size(study["paper"].sizes[row.model]).size
        after = rights(accuracy(size, row.fraction))
        before = rights(0.2 + 0.02 * math.log10(size / 20_000))
        assert row.difference == pytest.approx((after - before) / ITEMS)
        # the better model has all right that the other has
        assert (row.only_after, row.only_against) == (after - before, 0)
        assert row.p == pytest.approx(min(1.0, 2 * 0.5 ** (after - before)))
        share = (after - before) / ITEMS
        error = math.sqrt(share * (1 - share) / (ITEMS - 1))
        assert row.standard_error == pytest.approx(error)
    whole = gains.query("against == 'before' and fraction == 1")
    assert whole["told_apart"].all() and (whole["p_adjusted"] >= whole["p"]).all()


def cut_short(paper: Paper, fitting: int) -> Path:
    """Makes all but so many of the test examples of the only fine-tuning too long."""
    (path,) = paper.root.glob("runs/finetune/*/record.json")
    record = json.loads(path.read_text())
    result = record["result"]
    result["examples"] = COUNTS | {"test": fitting}
    result["left_out"] = {"train": {"too long": 4}, "test": {"too long": ITEMS - fitting}}
    result["majority"]["accuracy"] = 0.02
    if result["frozen"]:
        result["frozen"]["items"] = fitting
    path.write_text(json.dumps(record))
    return path


def only(paper: Paper) -> finetunings.Tuning:
    (tuning,) = finetunings.tunings(tabled(paper))
    return tuning


def test_baselines_are_of_the_items_that_were_scored_or_say_of_how_many(tmp_path):
    """Test examples that are too long are cut for scores and left out of all else: the commonest
    label is counted over all of them, frozen features are of the rest."""
    paper = tuned(tmp_path, sizes={"50k": 50_000}, zero=False, fractions=(1.0,))
    path = paper.root / "runs/examples/part-ee/record.json"
    record = json.loads(path.read_text())
    counts = dict(zip(LABELS, (80, 60, 40, 20), strict=True))
    record["result"]["label_counts"]["test"] = counts
    path.write_text(json.dumps(record))
    assert only(paper).whole[0].majority == 0.4
    cut_short(paper, ITEMS - 6)
    told = finetune_table.told(tabled(paper))["tasks"][0]
    *_, frozen, majority = told["rows"][0]["scores"]
    assert frozen == ("0.35 ± 0.07", "of 194 of 200 items") and majority == ("0.400", "")
    (said,) = [text for text in told["words"] if text.startswith("Up to 6 of 200 test examples")]
    assert "losses and frozen features are of the others alone. A score" in said
    (said,) = [text for text in told["words"] if text.startswith("Always giving")]
    assert "is right for 0.400 of the test items" in said
    text = page(paper)
    assert "of 194 of 200 items" in text and "(of the items that fit the context)" in text


@pytest.mark.parametrize(
    ("fitting", "apart"), [(ITEMS, True), (ITEMS - 2, True), (ITEMS // 2, False)]
)
def test_what_few_items_were_asked_is_only_beaten_whatever_the_rest_is(tmp_path, fitting, apart):
    """0.59 of 200 items right, the frozen features 0.35 of those that fit, four labels 0.25."""
    paper = tuned(tmp_path, sizes={"50k": 50_000}, zero=False, fractions=(1.0,), gain=0.15)
    cut_short(paper, fitting)
    (outcome,) = only(paper).whole
    assert only(paper).over_frozen(outcome).apart is apart
    assert only(paper).over_majority(outcome).apart is True


def test_the_commonest_written_answer_is_of_what_fits(tmp_path):
    paper = tuned(tmp_path, "docstring", {"50k": 50_000}, zero=False, fractions=(1.0,))
    assert only(paper).over_majority(only(paper).whole[0]).apart
    cut_short(paper, 50)
    told = finetune_table.told(tabled(paper))["tasks"][0]
    assert told["rows"][0]["scores"][-1] == ("0.0200", "of 50 of 200 items")
    assert any(
        "losses and the commonest answer are of the others" in text for text in told["words"]
    )
    # 0.44 is right, and the commonest answer may be right for the other three quarters
    assert not only(paper).over_majority(only(paper).whole[0]).apart


def test_labels_that_were_not_learned_from_are_told(tmp_path):
    paper = tuned(tmp_path, sizes={"50k": 50_000}, zero=False, fractions=(1.0,))
    path = cut_short(paper, ITEMS - 6)
    record = json.loads(path.read_text())
    record["result"] |= {"absent_labels": {"train": [LABELS[1]], "validation": LABELS[2:]}}
    path.write_text(json.dumps(record))
    words = finetunetext.words(tables := tabled(paper), finetunings.tunings(tables)[0])
    for lost in ("4 (of train: too long)", "6 (of test: too long)"):
        assert any(lost in text for text in words)
    quarter = ITEMS // 4
    (kept,) = [text for text in words if "asked all the same" in text]
    assert (
        f"{2 * quarter} (of test: their label is in no example that the kept state was chosen by)"
        in kept
    )
    assert f"{quarter} (of test: their label is in no example that was learned from)" in kept


def test_gains_are_of_the_items_that_both_were_asked(tmp_path):
    """A model is not asked about documents that it learned from, and its items count anew; a score
    that only all items together have is of other items then, and is not compared."""
    paper = tuned(tmp_path, "docstring", {"50k": 50_000}, zero=False, fractions=(1.0,))
    folder = tmp_path / "runs/evaluate/50k-docstring-1-full-s0-eval"
    rows = parquet.read_table(folder / "items.parquet").to_pylist()
    base = parquet.read_table(folder.parent / "50k-docstring-before-eval/items.parquet").to_pylist()
    kept = [row | {"doc_id": row["doc_id"] // 2} for row in rows if row["doc_id"] % 2]
    parquet.write_table(pyarrow.Table.from_pylist(kept), folder / "items.parquet")
    record = json.loads((folder / "record.json").read_text())
    after = np.mean([row["statistics"][0]["sums"][0] for row in kept])
    record["result"]["scores"] = [
        score | {"items": len(kept)} | ({"value": after} if score["metric"] != "chrf" else {})
        for score in record["result"]["scores"]
    ]
    (folder / "record.json").write_text(json.dumps(record))
    (row,) = tabled(paper)["gains"].to_dict("records")
    before = np.mean([row["statistics"][0]["sums"][0] for row in base if row["doc_id"] % 2])
    assert (row["metric"], row["items"]) == ("exact_match", ITEMS / 2)
    assert row["value"] == pytest.approx(after) and row["against_value"] == pytest.approx(before)
    assert row["difference"] == pytest.approx(after - before)


def test_a_score_of_all_items_together_has_a_wide_error_and_no_test(study):
    gains = study["tables"]["gains"].query("finetune == 'docstring' and against == 'before'")
    exact, partly = (gains[gains["metric"] == name] for name in ("exact_match", "chrf"))
    assert exact["test"].eq("McNemar").all()
    assert partly["test"].isna().all() and partly["p_adjusted"].isna().all()
    assert partly["standard_error"].to_numpy() == pytest.approx(math.hypot(2, 2))
    assert partly["difference"].to_numpy() == pytest.approx(100 * exact["difference"].to_numpy())


def test_written_answers_are_compared_by_what_they_share_with_the_right_one(tmp_path):
    """chrF of a model that writes three quarters of an answer; of another, a quarter."""
    paper = tuned(tmp_path, "docstring", {"50k": 50_000}, zero=False, fractions=(1.0,))
    for run, right in (("50k-docstring-1-full-s0-eval", 3), ("50k-docstring-before-eval", 1)):
        folder = tmp_path / "runs/evaluate" / run
        rows = parquet.read_table(folder / "items.parquet").to_pylist()
        for place, row in enumerate(rows):
            answer = f"Return the {place} of it."
            sums = overlaps.counts("chrf", [answer], answer[: len(answer) * right // 4])
            row["statistics"].append({"metric": "chrf", "sums": sums})
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "items.parquet")
        record = json.loads((folder / "record.json").read_text())
        for score in record["result"]["scores"]:
            if score["metric"] == "chrf":
                total = np.sum([row["statistics"][-1]["sums"] for row in rows], axis=0)
                score["value"] = overlaps.score("chrf", total)
        (folder / "record.json").write_text(json.dumps(record))
    gains = tabled(paper)["gains"].set_index("metric")
    row = gains.loc["chrf"]
    assert (row["test"], row["items"]) == ("randomization", ITEMS)
    assert row["difference"] == pytest.approx(row["value"] - row["against_value"])
    assert row["difference"] > 5 and row["p_adjusted"] < 0.01 and row["standard_error"] < 2


def test_where_nothing_is_exactly_right_what_is_right_in_part_is_told():
    values = [("exact_match", 0.0), ("chrf", 3.0), ("exact_match", 0.0), ("chrf", 0.0)]
    rows = pandas.DataFrame(values, columns=["metric", "value"])
    assert scores.telling(rows, "exact_match") == "chrf"
    rows.loc[0, "value"] = 0.1
    assert scores.telling(rows, "exact_match") == "exact_match"
    assert scores.telling(rows[:0], "exact_match") == "exact_match"


def test_the_study_s_own_ladder_does_not_change_by_fine_tuning(study, tmp_path):
    page(plain(tmp_path))
    without = study_tables.read(tmp_path / "tables" / "runs.parquet")
    without = study_tables.own_ladder(without)
    with_it = study_tables.own_ladder(study["tables"])
    beside = {"runs", "provenance", "failures", "tasks", "transfer", "transfer_laws", *TABLES}
    for name in set(without) - beside:
        assert with_it[name].equals(without[name]), name
    figures = {entry["name"]: entry for entry in study["index"]}
    plain_index = json.loads((tmp_path / "figures" / "index.json").read_text())
    assert len(plain_index) > 5
    for entry in plain_index:
        assert figures[entry["name"]] == entry
        paths = (root / "figures" / entry["file"] for root in (study["paper"].root, tmp_path))
        first, second = (path.read_bytes() for path in paths)
        assert first == second, entry["name"]


def test_a_study_without_fine_tuning_has_no_section_and_empty_tables(tmp_path):
    paper = Paper(tmp_path, sizes=TWO, budgets=(BUDGET,)).ladder()
    text, tables = page(paper), tabled(paper)
    assert 'id="finetuning"' not in text and "#finetuning" not in text
    for name in (*TABLES, "transfer", "transfer_laws"):
        assert len(tables[name]) == 0, name
    assert finetune_table.told(tables) is None


def test_the_section_shows_scores_before_and_after_with_what_is_beside(study):
    told = finetune_table.told(study["tables"])
    part, docstring = told["tasks"]
    assert (part["name"], docstring["name"]) == ("part", "docstring")
    assert len(part["rows"]) == 6 and part["classes"] and not docstring["classes"]
    row = next(r for r in part["rows"] if (r["model"], r["about"]) == ("300k", "full"))
    before, after, gain, zero, over_zero, frozen, majority = row["scores"]
    assert before[0] == "0.23 ± 0.06" and after[0] == "0.52 ± 0.07"
    assert gain == ("+0.29 ± 0.06", "p < 0.001") and zero[0] == "0.40 ± 0.07"
    assert over_zero[0].startswith("+0.12") and frozen[0] == "0.35 ± 0.07"
    assert majority[0] == "0.250"
    assert {name for name, _ in part["every"]["columns"]} >= {"accuracy", "macro F1"}
    # every model before, and after each method
    assert len(part["confusions"]) == 3 * 3 and not docstring["confusions"]
    matrix = part["confusions"][0]
    assert sum(int(c["count"]) for row in matrix["rows"] for c in row["cells"]) == ITEMS
    text = study["page"]
    assert 'id="finetuning"' in text and 'href="#finetuning"' in text
    assert "0.52 ± 0.07" in text
    assert "<td>finetune part</td>" in text and "the loss is not finite" in text  # the failures


def test_the_words_say_what_was_put_in(study):
    tables = study["tables"]
    part, docstring = finetunings.tunings(tables)
    words = " ".join(finetunetext.words(tables, part))
    assert "50k from 0.210 to 0.440 (+0.23 ± 0.06) and 1.6M from 0.240 to 0.590" in words
    assert words.count("better than the base at 3 of 3 sizes") == 2
    assert words.count("it grows") == 2  # 0.08 a decade of size, by each method
    assert "go from 1.30 to 1.42 at 50k" in words and "they rise at 0 of 3 sizes" in words
    assert "they rise at 3 of 3 sizes, most at" in words
    assert "on 50 labelled examples 0.49 ± 0.07 fine-tuned and 0.30 ± 0.06 from zero" in words
    assert "right for 0.250 of the test items" in words
    assert "50k (full): diverged" in words
    assert "7 (a repeated example) and 3 (of train: too long for the context)" in words
    written = " ".join(finetunetext.words(tables, docstring))
    assert "chrF of 50k from 26.0 to 49.0" in written and "logistic regression" not in written


def test_what_pre_training_is_worth_is_read_from_training_from_zero(study):
    told = finetune_table.told(study["tables"])["tasks"]
    part = told[0]["transfer"]
    moved = 0.02 * 50**0.4 * shape_of_size(1_600_000).size ** 0.5
    assert part["words"][0] == (
        "At 1.6M, fine-tuned (full) on 50 examples, pre-training is worth "
        f"{moved:.0f} labelled examples at this size: training from zero takes {50 + moved:.0f} "
        "to reach its loss."
    )
    law = next(law for law in part["laws"] if law["method"] == "full")
    assert law["status"] == "converged"
    assert {row["name"]: row["value"] for row in law["rows"]} == {
        "k": "0.0200",
        "α": "0.400",
        "β": "0.500",
    }
    assert "multiplied by 3.2" in law["words"][0] and "by 2.5" in law["words"][0]
    worth = {(p["model"], p["method"], p["cells"][0]): p["cells"][3] for p in part["points"]}
    assert (
        worth["1.6M", "full", "800"] == "more than nothing"
        and worth["50k", "lora", "800"] == "nothing"
    )
    alone = told[1]["transfer"]
    assert alone["laws"][0]["status"] == "too-few-points" and not alone["laws"][0]["rows"]
    assert "cannot be told" in alone["words"][0]


def test_figures_are_drawn_for_what_was_measured(study):
    sections = {entry["name"]: entry["section"] for entry in study["index"]}
    mine = {name: s for name, s in sections.items() if s.startswith("finetuning")}
    assert mine == {
        **dict.fromkeys(
            (
                "finetuning-part-scores-acc",
                "finetuning-part-gain",
                "finetuning-part-data-loss",
                "finetuning-part-data-score",
                "finetuning-part-transfer",
            ),
            "finetuning-part",
        ),
        **dict.fromkeys(
            (
                "finetuning-docstring-scores-exact_match",
                "finetuning-docstring-scores-chrf",
                "finetuning-docstring-gain",
            ),
            "finetuning-docstring",
        ),
        "forgetting": "finetuning",
    }
    for name in mine:
        assert f'id="figure-{name}"' in study["page"], name


def test_a_study_of_failures_alone_says_so(tmp_path):
    paper = Paper(tmp_path, sizes=TWO, budgets=(BUDGET,)).ladder()
    tunings = Tunings(paper)
    tunings.examples("part")
    for label in TWO:
        tunings.tuned("part", label, status="out-of-memory", reason="it takes 9 GiB")
    text = page(paper)
    assert 'id="finetuning"' in text and "50k (full): out-of-memory" in text
    assert "it takes 9 GiB" in text


def test_a_run_without_its_evaluation_keeps_its_losses(tmp_path):
    paper = tuned(tmp_path, zero=False, fractions=(1.0,))
    paper.runs = [run for run in paper.runs if run["verb"] != "evaluate"]
    told = finetune_table.told(tabled(paper))
    (task,) = told["tasks"]
    assert task["rows"][0]["scores"][1][0] == "–" and task["rows"][0]["losses"][0][0] == "3.10"
    assert "forgetting" in drawn(paper)


def test_why_forgetting_was_not_measured_is_said(tmp_path):
    paper = tuned(tmp_path, zero=False, fractions=(1.0,))
    for run in paper.runs:
        if run["verb"] == "finetune":
            path = tmp_path / run["path"]
            record = json.loads(path.read_text())
            record["result"] |= {"forgetting": None, "forgetting_reason": "too short"}
            path.write_text(json.dumps(record))
    assert finetune_table.told(tabled(paper))["tasks"][0]["rows"][0]["losses"][2] == ("–", "")
    text = page(paper)
    assert f"What it forgets was not measured ({', '.join(TWO)}): too short." in text
    assert "bits per byte of held-out text of the corpus go from" not in text


def test_what_began_from_zero_has_no_budget_of_its_own(tmp_path):
    paper = tuned(tmp_path)
    told = finetune_table.told(tabled(paper))
    for run in paper.runs:
        if run["labels"].get("from_zero"):
            del run["labels"]["budget"], run["labels"]["seed"]
    without = finetune_table.told(tabled(paper))
    assert without == told and told["tasks"][0]["rows"][0]["scores"][3][0] == "0.40 ± 0.07"


def test_seeds_are_one_outcome_whose_error_holds_what_they_differ_by(tmp_path):
    paper = tuned(tmp_path, zero=False, fractions=(1.0,))
    Tunings(paper).tuned("part", "50k", seed=1, gain=0.1)
    one, other = finetunings.tunings(tabled(paper))[0].whole
    assert len(one.runs) == 2 and len(other.runs) == 1
    first = rights(accuracy(shape_of_size(50_000).size, 1.0)) / ITEMS
    assert one.after.value == pytest.approx(first + 0.05)
    between = 0.1 / math.sqrt(2) / math.sqrt(2)
    assert one.after.error > between > other.after.error


def test_none_right_is_not_worse_than_a_majority_that_few_items_allow(tmp_path):
    paper = tuned(tmp_path, "docstring", zero=False, fractions=(1.0,))
    for label in TWO:
        Tunings(paper).tuned("docstring", label, seed=1, gain=-1.0)
    paper.runs = [r for r in paper.runs if r["labels"].get("tuning_seed") != 0]
    tables = tabled(paper)
    (task,) = finetunings.tunings(tables)
    assert [o.after.value for o in task.whole] == [0.0, 0.0]
    # 0 of 200 has Wilson's interval up to 1.9 %, which holds the majority's 1 %
    words = " ".join(finetunetext.words(tables, task))
    assert "full is better than that at 0 of 2 sizes, it cannot be told at 2." in words


def test_a_constant_answer_after_fine_tuning_is_named(tmp_path):
    paper = tuned(tmp_path, zero=False, fractions=(1.0,))
    for path in (tmp_path / "runs" / "evaluate").glob("50k-part-1-full-s0-eval/record.json"):
        record = json.loads(path.read_text())
        for row in record["result"]["answers"]:
            row |= {"given": 0, "given_text": " asyncio"}
        path.write_text(json.dumps(record))
    tables = tabled(paper)
    words = " ".join(finetunetext.words(tables, finetunings.tunings(tables)[0]))
    assert "After fine-tuning (full): nearly one answer" in words and "“asyncio” for 100 %" in words


def test_a_model_trained_elsewhere_is_held_against_itself(tmp_path):
    paper = tuned(tmp_path, zero=False, fractions=(1.0,))
    shape = shape_of_size(300_000)
    labels = {"model": "elsewhere", "finetune": "part", "method": "full", "tuning_seed": 0}
    result = Tunings(paper)._result("part", "700k", 1.0, "full", False)
    base = {"verb": None, "pretrained": {"repo": "somebody/small"}}
    paper.add("finetune", "elsewhere-ft", labels, result, {"base": base, "method": "full"})
    for name, named in (("before", {"before": True}), ("after", labels)):
        spec = {"finetune": "elsewhere-ft"} if name == "after" else {"pretrained": {"repo": "x/y"}}
        paper.evaluate("elsewhere", shape, named=named | {"suite": "part"}, pretrained=spec)
    row = tabled(paper)["finetunings"].set_index("run").loc["elsewhere-ft"]
    assert (row["origin"], row["base"]) == ("pretrained", "somebody/small")
    assert np.isnan(row["budget"])
    gains = tabled(paper)["gains"].query("model == 'elsewhere'")
    assert len(gains) and gains["origin"].eq("pretrained").all()


def outcome(model, params, origin, gain, error=0.01) -> finetuned.Outcome:
    known = {name: Number(0.5, 0.1) for name in ("after", "before", "zero", "over_zero")}
    gain = None if gain is None else Number(gain, error)
    runs = pandas.DataFrame([{"model": model}])
    return finetuned.Outcome(model, params, origin, "full", 1.0, runs, gain=gain, **known)


def test_models_trained_elsewhere_are_on_no_line_with_those_trained_here():
    here = [outcome(f"h{n}", 10**n, "trained", 0.1 * n) for n in (4, 5)]
    there = [outcome(f"t{n}", 10**n, "pretrained", -0.1 * n) for n in (6, 7, 8)]
    assert len(list(finetunetext._by_size("full", here + there[:2]))) == 1  # two: not by size alone
    words = list(finetunetext._by_size("full", here + there))
    assert len(words) == 2
    assert "(full, trained here)" in words[0] and "go with +0.10 ±" in words[0]
    assert "(full, trained elsewhere)" in words[1] and words[1].endswith("it shrinks.")
    _, ax = drawing.axes()
    finetuning._points(ax, here + there, lambda o: o.gain, label="after")
    lines = [container.lines[0] for container in ax.containers]
    assert [len(line.get_xdata()) for line in lines] == [2, 3]
    assert [line.get_linestyle() for line in lines] == ["-", "None"]
    assert [container.get_label() for container in ax.containers].count("after") == 1


def test_why_a_trend_cannot_be_told_is_said():
    """It is one size, a score that is not there, or a gain without an error."""
    one, lost = outcome("a", 1e4, "trained", 0.1), outcome("b", 1e5, "trained", None)
    exact = outcome("c", 1e5, "trained", 0.2, error=0.0)
    for outcomes, why in (
        ([one], "1 size alone has a gain."),
        ([one, lost], "1 size alone has a gain, and of 1 there is no score before or after."),
        ([one, exact], "the gain of c has no error."),
    ):
        (text,) = finetunetext._by_size("full", outcomes)
        assert text == f"Whether the gain (full) grows with size cannot be told: {why}"


def test_that_training_from_zero_does_as_well_is_said(study):
    part = finetunings.tunings(study["tables"])[0]
    told = [dataclasses.replace(o, over_zero=Number(0.01, 0.1)) for o in part.whole]
    equal = dataclasses.replace(part, outcomes=tuple(told))
    assert "bought nothing here that this test can tell" in " ".join(finetunetext._from_zero(equal))
    assert "bought nothing" not in " ".join(finetunetext._from_zero(part))


def test_a_trend_is_told_only_where_it_is_more_than_its_errors():
    sizes = (1e4, 1e5, 1e6)
    clear = measured.trend([(s, Number(0.1 * math.log10(s), 0.01)) for s in sizes])
    assert clear.value == pytest.approx(0.1)
    assert clear.error == pytest.approx(0.01 / math.sqrt(2))  # sum of x^2 is 2
    # scatter that errors do not explain: Student's t with one degree of freedom is 12.7
    values = (0.0, 0.3, 0.2)
    wide = measured.trend([(s, Number(v, 0.01)) for s, v in zip(sizes, values, strict=True)])
    left = np.array(values) - np.mean(values) - 0.1 * np.array([-1, 0, 1])
    reach = 12.7062 * math.sqrt(float(left @ left) / 2)
    assert wide.error * 1.96 == pytest.approx(reach, rel=1e-4)
    assert measured.trend([(1e4, Number(0.1, 0.01))]) is None
    assert measured.trend([(1e4, Number(0.0, 0.0)), (1e5, Number(0.1, 0.1))]) is None


def test_the_same_tables_give_the_same_bytes_in_another_process(tmp_path):
    paper = tuned(tmp_path, methods=("full", "lora"))
    names = [name for name in drawn(paper) if "finetuning" in name or name == "forgetting"]
    assert len(names) == 6
    runs = str(tmp_path / "tables" / "runs.parquet")
    command = [sys.executable, "-m", "llama_bench", "plot", '{"study": "paper"}']
    subprocess.run(
        [*command, str(tmp_path / "again" / "index.json"), runs],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
    )
    for name in names:
        first, again = (tmp_path / folder / f"{name}.svg" for folder in ("figures", "again"))
        assert first.read_bytes() == again.read_bytes(), name
