"""The ledger: a forecast is scored against its run, and only one that came before it."""

from __future__ import annotations

import json
import math
import random
import re
import xml.etree.ElementTree as xml

import pandas
import pytest
from study_on_paper import Paper, law, shape_of_size
from test_collect import collected
from test_report import reported

from llama_bench.derive import forecast, plot
from llama_bench.derive.judging import score_forecast
from llama_bench.derive.tables import main_metric, study_tables
from llama_bench.derive.words import ledgertext
from llama_bench.fields import UserError
from llama_bench.specs import ForecastPoint, ForecastSpec

BEFORE, AFTER = 1.6e9, 1.8e9  # runs on paper begin at 1.7e9
HELD = ("700k", 800_000)


def study(root, off: float = 1.0, **said) -> Paper:
    """One training, whose loss is `off` times what the law says."""
    paper = Paper(root)
    paper.law = lambda n, d: off * law(n, d)
    paper.train(HELD[0], shape_of_size(paper.sizes[HELD[0]]), HELD[1], **said)
    paper.law = law
    return paper


def sentences(paper: Paper) -> str:
    collected(paper)
    ledger = study_tables.read(paper.root / "tables" / "runs.parquet")["forecasts"]
    return " ".join(ledgertext.words(ledgertext.points(ledger)))


def test_a_row_per_level_says_what_was_foretold_and_what_was_measured(tmp_path):
    paper = study(tmp_path, off=1.015)
    paper.forecast(HELD, written=BEFORE)
    rows = collected(paper)["forecasts"]
    assert [row["level"] for row in rows] == [0.5, 0.8, 0.95]
    loss = law(shape_of_size(700_000).size, 800_000)
    for row, off in zip(rows, (0.01, 0.02, 0.04), strict=True):
        assert row["point"] == loss and row["covered"] == 0.75
        assert (row["low"], row["high"]) == (loss * (1 - off), loss * (1 + off))
        assert row["loss"] == pytest.approx(1.015 * loss)
        assert row["error_percent"] == pytest.approx(100 * (1 / 1.015 - 1))
        assert (row["run"], row["budget"], row["seed"]) == ("700k-800000-s0", 800_000, 0)
        assert (row["law"], row["runs_used"], row["before"]) == ("kaplan", 7, True)
    assert [row["inside"] for row in rows] == [False, True, True]


def test_candidates_have_a_row_each(tmp_path):
    paper = study(tmp_path)
    paper.forecast(HELD, written=BEFORE)
    rows = collected(paper)["candidates"]
    assert [(row["law"], row["chosen"], row["folds"]) for row in rows] == [
        ("kaplan", True, 1),
        ("chinchilla", False, 1),
    ]
    assert rows[1]["score"] is None


@pytest.mark.parametrize(
    ("written", "before"), [(1.7e9 - 1e-3, True), (1.7e9 + 1e-3, False), (None, None)]
)
def test_before_is_by_the_clock_of_the_run(tmp_path, written, before):
    paper = study(tmp_path)
    paper.forecast(HELD, written=written)
    assert {row["before"] for row in collected(paper)["forecasts"]} == {before}


def test_what_is_not_measured_yet_is_null(tmp_path):
    paper = Paper(tmp_path)
    paper.forecast(HELD, written=BEFORE)
    for row in collected(paper)["forecasts"]:
        assert row["run_status"] == "missing record" and row["point"] is not None
        assert {row[name] for name in ("loss", "error_percent", "inside", "before")} == {None}


def test_an_end_at_infinity_is_infinite_and_holds_every_loss(tmp_path):
    paper = study(tmp_path, off=50)
    paper.forecast(HELD, written=BEFORE, said={"high_95": None})
    rows = collected(paper)["forecasts"]
    assert rows[2]["high"] == math.inf and rows[2]["inside"] and not rows[1]["inside"]
    assert "to ∞) before it was trained" in sentences(paper)


def test_a_training_that_the_study_asks_for_no_more_is_still_scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paper = study(tmp_path / "results")
    paper.forecast(HELD, written=BEFORE)
    paper.runs.clear()
    rows = collected(paper)["forecasts"]
    assert rows[0]["loss"] == law(shape_of_size(700_000).size, 800_000) and rows[0]["before"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"id": "x"}', '{"id": "x", "runs_used": [], "points": [{}], "levels": [0.5]}'],
)
def test_a_damaged_forecast_is_named(tmp_path, content):
    paper = study(tmp_path)
    paper.forecast(HELD, written=BEFORE).write_text(content)
    with pytest.raises(UserError, match=r"held-1\.json: is no forecast file"):
        collected(paper)


def test_a_forecast_with_a_point_and_no_interval_is_named(tmp_path):
    paper = study(tmp_path)
    path = paper.forecast(HELD, written=BEFORE)
    path.write_text(path.read_text().replace("low_80", "low_81"))
    with pytest.raises(UserError, match=r"held-1\.json: is no forecast file .*low_80"):
        collected(paper)


def test_a_forecast_that_is_not_there_has_no_row(tmp_path):
    paper = study(tmp_path)
    paper.forecast(HELD, written=BEFORE).unlink()
    found = collected(paper)
    assert found["forecasts"] == found["candidates"] == []
    assert sentences(paper) == ""


def test_one_sentence_says_how_the_forecast_did(tmp_path):
    paper = study(tmp_path, off=1.015)
    paper.forecast(HELD, written=BEFORE)
    loss = law(shape_of_size(700_000).size, 800_000)
    assert (
        f"The loss of 700k at 800k tokens was forecast as {loss:.3f} (95 %: {0.96 * loss:.3f} to "
        f"{1.04 * loss:.3f}) before it was trained; it came out at {1.015 * loss:.3f}: 1.5 % off, "
        "inside the interval."
    ) in sentences(paper)
    text = reported(paper).read_text()
    assert "inside the 80 % interval" in text and "−1.5 %" in text and "held 75 %" in text
    assert 'href="#forecasts"' in text and 'id="figure-forecasts"' in text
    assert text.count('<span class="tag ok">chosen</span>') == 1


def test_one_forecast_is_held_against_all_seeds_of_its_training(tmp_path):
    paper = Paper(tmp_path)
    for budget in (400_000, 800_000):
        for seed in (0, 1):
            paper.train("700k", shape_of_size(paper.sizes["700k"]), budget, seed)
    path = paper.forecast(("700k", 400_000), ("700k", 800_000), written=BEFORE)
    content = json.loads(path.read_text())
    again = [point | {"run": point["run"][:-1] + "1"} for point in content["points"]]
    path.write_text(json.dumps(content | {"points": content["points"] + again}))
    said = sentences(paper)
    assert "The 2 forecasts that were written in time, held against 4 trainings, were 0 %" in said
    assert "in the 95 % interval for 4 of these." in said


def test_a_loss_outside_every_interval_is_called_so(tmp_path):
    paper = study(tmp_path, off=1.2)
    paper.forecast(HELD, written=BEFORE)
    assert "outside the interval" in sentences(paper)
    assert "outside the 95 % interval" in reported(paper).read_text()


def test_what_was_written_after_the_run_is_marked_and_not_scored(tmp_path):
    paper = study(tmp_path)
    paper.forecast(HELD, written=AFTER)
    assert "tests nothing: written after the run began: no forecast" in sentences(paper)
    text = reported(paper).read_text()
    assert '<span class="tag bad">written after the run began: no forecast</span>' in text
    assert "before it was trained" not in text and 'id="figure-forecasts"' not in text


def test_what_waits_for_its_run_is_marked_and_drawn_without_a_loss(tmp_path):
    paper = Paper(tmp_path)
    paper.train("300k", shape_of_size(300_000), 200_000)
    paper.forecast(HELD, written=BEFORE)
    text = reported(paper).read_text()
    assert "it is not trained yet" in text
    assert '<span class="tag soft">not scored yet</span>' in text
    drawing = (tmp_path / "figures" / "forecasts.svg").read_text()
    assert ">700k, forecast<" in drawing and ">measured<" not in drawing


def test_a_run_that_diverged_scores_nothing(tmp_path):
    paper = study(tmp_path, status="diverged", reason="the loss is 40 at step 7")
    paper.forecast(HELD, written=BEFORE)
    assert "tests nothing: the run has no loss" in sentences(paper)
    assert "the run has no loss: diverged" in reported(paper).read_text()


def test_too_few_runs_make_no_forecast_and_the_report_says_why(tmp_path):
    paper = Paper(tmp_path, sizes={"50k": 50_000, "700k": 700_000}).ladder()
    ladder = pandas.DataFrame(collected(paper)["ladder"])
    path = paper.forecast(written=BEFORE)
    made = really_forecast(ladder, "700k")
    assert made["status"] == "too-few-points"
    path.write_text(json.dumps(made | {"written": BEFORE}))
    why = "3 finished runs; a forecast needs at least 6"
    assert f"No forecast could be made: {why}." in sentences(paper)
    text = reported(paper).read_text()
    assert '<span class="tag bad">no forecast</span>' in text and "No law was compared" in text
    assert 'id="figure-forecasts"' not in text


def really_forecast(ladder: pandas.DataFrame, held: str) -> dict:
    """What the verb `forecast` says of the model `held` from all others."""
    used, ahead = ladder[ladder["model"] != held], ladder[ladder["model"] == held]
    names = ["run", "model", "params", "tokens", "flops"]
    points = tuple(ForecastPoint(**row) for row in ahead[names].to_dict("records"))
    return forecast.forecast(used, ForecastSpec(runs=tuple(used["run"]), points=points))


def test_a_real_forecast_of_a_known_law_comes_out(tmp_path):
    paper = Paper(tmp_path, noise=0.002).ladder()
    made = really_forecast(pandas.DataFrame(collected(paper)["ladder"]), "1.6M")
    paper.forecast(written=BEFORE, name=made["id"]).write_text(
        json.dumps(made | {"written": BEFORE})
    )
    found = collected(paper)
    for row in found["forecasts"]:
        truth = law(row["params"], row["tokens"])
        assert row["point"] == pytest.approx(truth, rel=0.01)
        assert row["low"] < row["point"] < row["high"] and row["before"]
    assert sum(row["chosen"] for row in found["candidates"]) == 1
    errors = {row["run"]: abs(row["error_percent"]) for row in found["forecasts"]}
    said = re.search(r"The 3 forecasts .* were ([\d.]+) % off on average", sentences(paper))
    assert float(said[1]) == pytest.approx(sum(errors.values()) / 3, rel=0.06)


def test_old_forecasts_stay_and_the_one_that_came_first_is_spoken_of(tmp_path):
    paper = study(tmp_path, off=1.015)
    paper.forecast(HELD, written=BEFORE, name="old")
    paper.forecast(HELD, written=AFTER, name="new")
    said = sentences(paper)
    assert "before it was trained" in said
    assert "1 of 2 forecasts is written after the run had begun" in said
    text = reported(paper).read_text()
    assert "<td>old</td>" in text and "<td>new</td>" in text
    assert text.index("<td>new</td>") < text.index("<td>old</td>")


def test_a_forecast_by_a_fit_that_did_not_converge_is_marked_and_not_drawn(tmp_path):
    paper = study(tmp_path)
    paper.forecast(HELD, written=BEFORE, status="ill-posed")
    assert "The fit that forecast ended ill-posed" in sentences(paper)
    text = reported(paper).read_text()
    assert "inside the 50 % interval (fit ill-posed)" in text
    assert 'id="figure-forecasts"' not in text


def test_held_out_budgets_are_drawn_over_sizes(tmp_path):
    paper = Paper(tmp_path, budgets=(800_000,)).ladder()
    paper.forecast(*((label, 800_000) for label in paper.sizes), written=BEFORE)
    reported(paper)
    (entry,) = (
        entry
        for entry in json.loads((tmp_path / "figures" / "index.json").read_text())
        if entry["name"] == "forecasts"
    )
    words = " ".join(xml.parse(tmp_path / "figures" / "forecasts.svg").getroot().itertext())
    assert "800k tokens, forecast" in words and "Parameters without embeddings" in words
    assert "50 %, 80 % and 95 % intervals" in entry["caption"]


def test_nothing_is_said_where_nothing_is_held_out(tmp_path):
    text = reported(Paper(tmp_path).ladder()).read_text()
    assert 'id="forecasts"' not in text and "#forecasts" not in text


def test_the_same_forecasts_give_the_same_bytes(tmp_path):
    paper = study(tmp_path)
    paper.forecast(HELD, written=BEFORE)
    once = reported(paper).read_bytes()
    figure = (tmp_path / "figures" / "forecasts.svg").read_bytes()
    plot.run(
        '{"study": "paper"}', tmp_path / "again" / "index.json", [tmp_path / "tables/runs.parquet"]
    )
    assert (tmp_path / "again" / "forecasts.svg").read_bytes() == figure
    assert reported(paper).read_bytes() == once


def test_a_forecast_says_why_its_fit_did_not_converge(tmp_path):
    ladder = pandas.DataFrame(collected(Paper(tmp_path, noise=0.002).ladder())["ladder"])
    # sizes and tokens in one ratio: no law of both is determined
    ladder["tokens"] = 20 * ladder["params"] * (1 + ladder.index % 2)
    made = really_forecast(ladder, "1.6M")
    assert made["status"] != "converged"
    assert f"the fit ended {made['status']}: " in made["why"] and "; " in made["why"]


# forecasts of scores


def known_runs(rate: float = 0.5, noise: float = 0.01) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Runs whose accuracy is a known sigmoid of compute, those of the largest size held out."""
    wiggle = random.Random(2)
    rows = []
    for params in (2e4, 6e4, 2e5, 6e5):
        for tokens in (2e5, 6e5, 2e6):
            flops = 6 * params * tokens
            share = 0.25 + 0.75 / (1 + (1e12 / flops) ** rate)
            rows.append({"params": params, "tokens": tokens, "flops": flops, "seed": 0})
            rows[-1] |= {"value": share + wiggle.gauss(0, noise), "truth": share, "chance": 0.25}
            rows[-1] |= {"loss": law(params, tokens), "task_loss": 1 + 30 / flops**0.1}
    table = pandas.DataFrame(rows)
    held = table["params"] == 6e5
    return table[~held], table[held]


def test_an_accuracy_that_follows_a_law_is_foretold():
    known, ahead = known_runs()
    points = ahead[["params", "tokens", "flops"]]
    made = score_forecast.of_task(known, points, "acc")
    assert made["status"] == "converged" and made["law"] in ("direct", "two_step")
    assert {row["law"] for row in made["choice"]["table"]} == {"constant", "direct", "two_step"}
    for point, truth in zip(made["points"], ahead["truth"], strict=True):
        assert point["point"] == pytest.approx(truth, abs=0.05)
        assert 0 <= point["low_95"] <= truth <= point["high_95"] <= 1


def test_scores_that_do_not_follow_size_are_foretold_not_to_change():
    """A sigmoid goes wherever noise bends it to: up to 1, of a task that is guessed."""
    known, ahead = known_runs()
    wiggle = random.Random(3)
    known = known.assign(value=[round(120 * wiggle.gauss(0.25, 0.02)) / 120 for _ in known.index])
    made = score_forecast.of_task(known, ahead[["params", "tokens", "flops"]], "acc")
    assert (made["law"], made["status"]) == ("constant", "converged")
    mean, spread = known["value"].mean(), known["value"].std()
    for point in made["points"]:
        assert point["point"] == pytest.approx(mean) == made["parameters"]["level"]["value"]
        assert mean - 4 * spread < point["low_95"] < mean - spread
        assert mean + spread < point["high_95"] < mean + 4 * spread


def test_a_task_without_a_loss_of_its_own_takes_the_trainings():
    known, ahead = known_runs()
    known = known.assign(task_loss=math.nan)
    made = score_forecast.of_task(known, ahead[["params", "tokens", "flops"]], "exact_match")
    laws = [row["settings"] for row in made["choice"]["table"] if row["law"] != "constant"]
    (step,) = {settings["chance"] for settings in laws}
    assert step == 0.0  # nothing to guess among
    assert made["task_loss"] in (None, "loss")


def test_what_is_told_out_of_a_hundred_is_foretold_as_a_share():
    """chrF: the forecast of a hundred times a share is a hundred times as much."""
    known, ahead = known_runs()
    points = ahead[["params", "tokens", "flops"]]
    known = known.assign(task_loss=math.nan, chance=math.nan)
    share = score_forecast.of_task(known, points, "token_f1")
    made = score_forecast.of_task(known.assign(value=100 * known["value"]), points, "chrf")
    assert made["law"] == share["law"] and made["status"] == share["status"] == "converged"
    for one, other in zip(made["points"], share["points"], strict=True):
        for key in ("point", "low_50", "high_50", "low_95", "high_95"):
            assert one[key] == pytest.approx(100 * other[key], rel=1e-4)
        assert one["covered_95"] == other["covered_95"] and one["tokens"] == other["tokens"]
    for point, truth in zip(share["points"], ahead["truth"], strict=True):
        assert point["point"] == pytest.approx(truth, abs=0.1)


def test_what_has_no_bounds_has_no_law():
    assert [main_metric.most("rougeL", each) for each in ([0.2, 0.4], [9, 20])] == [1, 100]
    assert all(map(score_forecast.foretold, ("acc", "bits_per_byte", "bleu", "chrf", "rouge1")))
    assert not any(map(score_forecast.foretold, ("ter", "perplexity", "ece", "gold_margin")))


def test_bits_per_byte_are_foretold_as_a_loss():
    known, ahead = known_runs()
    known = known.assign(value=known["loss"] / 3)
    made = score_forecast.of_task(known, ahead[["params", "tokens", "flops"]], "bits_per_byte")
    truth = ahead["loss"] / 3
    for point, bits in zip(made["points"], truth, strict=True):
        assert point["point"] == pytest.approx(bits, rel=0.02)


@pytest.mark.parametrize(
    ("change", "status", "why"),
    [
        (lambda runs: runs[:5], "too-few-points", "5 evaluated runs; a forecast needs at least 6"),
        (lambda runs: runs.assign(value=0.0), "ill-posed", "all 9 runs have the same acc, 0"),
    ],
)
def test_what_cannot_be_foretold_says_why(change, status, why):
    known, ahead = known_runs()
    made = score_forecast.of_task(change(known), ahead[["params", "tokens", "flops"]], "acc")
    assert (made["status"], made["why"], made["law"]) == (status, why, None)
    assert "point" not in made["points"][0]


def test_scores_are_foretold_from_records_and_scored_by_the_held_out_evaluation(
    tmp_path, monkeypatch
):
    """From the records of trainings and evaluations, through the file, to the report."""
    monkeypatch.chdir(tmp_path)
    paper = Paper(tmp_path / "results").whole()
    ladder = pandas.DataFrame(collected(paper)["ladder"])
    used, ahead = ladder[ladder["model"] != "1.6M"], ladder[ladder["model"] == "1.6M"]
    names = ["run", "model", "params", "tokens", "flops"]
    points = [
        ForecastPoint(**row, evaluation=f"{row['run']}-eval")
        for row in ahead[names].to_dict("records")
    ]
    asked = ForecastSpec(
        runs=tuple(used["run"]),
        points=tuple(points),
        tasks=("heldout_next_line", "heldout_bits_per_byte", "heldout_chrf"),
        evaluations=tuple(f"{run}-eval" for run in used["run"]),
    )
    path = tmp_path / "results" / "forecasts" / f"{asked.id}.json"
    forecast.run(asked.canonical(), path, [])
    made = json.loads(path.read_text())
    assert asked.id.startswith("1.6M-scores-") and made["id"] == asked.id
    assert [task["task"] for task in made["tasks"]] == list(asked.tasks[:2])
    assert made["left_out"] == [{"task": "heldout_chrf", "why": "no run has a score of it"}]
    once = path.read_bytes()
    forecast.run(asked.canonical(), path, [])
    assert path.read_bytes() == once  # never written again
    path.write_text(json.dumps(made | {"written": BEFORE}))
    paper.forecasts.append(str(path))
    rows = collected(paper)["score_forecasts"]
    assert len(rows) == 2 * 3 * 3 and all(row["before"] for row in rows)
    for row in rows:
        if row["task"] == "heldout_bits_per_byte":
            assert row["value"] == pytest.approx(law(row["params"], row["tokens"]) / 2.4)
            assert abs(row["error"]) < 0.02 * row["value"]
        assert row["error"] == row["point"] - row["value"]
        assert row["inside"] == (row["low"] <= row["value"] <= row["high"])
    text = reported(paper).read_text()
    assert "Of 6 scored forecasts, " in text and ">Scores of tasks<" in text
    path.write_text(json.dumps(made | {"written": AFTER}))
    text = reported(paper).read_text()
    assert "6 of 6 were written after the run began" in text and "scored forecasts" not in text


def test_a_held_out_score_that_is_not_measured_yet_waits(tmp_path):
    paper = study(tmp_path)
    entry = {"task": "t", "metric": "acc", "filter": "none", "law": "direct", "why": None}
    point = {"run": "700k-800000-s0", "evaluation": "none", "model": "700k", "params": 7e5}
    point |= {"tokens": 800_000, "flops": 1e12, "point": 0.5, "low_95": 0.4, "high_95": 0.6}
    content = {"id": "held-scores", "written": BEFORE, "runs_used": ["a"], "levels": [0.95]}
    content["tasks"] = [entry | {"status": "converged", "points": [point]}]
    path = tmp_path / "forecasts" / "held-scores.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    paper.forecasts.append(str(path))
    (row,) = collected(paper)["score_forecasts"]
    assert (row["run_status"], row["value"], row["inside"]) == ("missing record", None, None)
    assert '<span class="tag soft">not scored yet</span>' in reported(paper).read_text()
    path.write_text(json.dumps(content | {"tasks": [{"task": "t"}]}))
    with pytest.raises(UserError, match=r"held-scores\.json: is no forecast file"):
        collected(paper)
