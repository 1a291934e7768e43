"""What the report says of training texts: the differences that were put in, and no others."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from pages_on_paper import drawn, page, tabled
from results_on_paper import DATA, PREPARE
from study_on_paper import Paper, shape_of_size

from llama_bench.derive.words import data_table, datatext, laddertext

TWO = {"50k": 50_000, "120k": 120_000}
OFF = {"deduplicated": -0.03, "normalised": -0.05, "wiki": 0.25}


def several(root, **how) -> Paper:
    """The study's own text whole and in part, two steps of cleaning on top, and another corpus."""
    paper = Paper(root, sizes=TWO, **how)
    paper.text(None)
    one, two = ("near_duplicates",), ("unicode", "near_duplicates")
    prepared = {
        "deduplicated": paper.text("deduplicated", one),
        "normalised": paper.text("normalised", two),
        "wiki": paper.text("wiki", corpus_sha256="cd" * 32),
    }
    paper.trained_on(None, DATA, same_text=True)
    paper.trained_on("quarter", DATA, 0.2, True, unique_tokens=200_000)
    for name, prepare in prepared.items():
        paper.trained_on(name, prepare, OFF[name])
    return paper


def test_other_texts_differ_by_what_was_put_in_at_every_size_and_budget(tmp_path):
    paper = several(tmp_path)
    tables = tabled(paper)
    found = {text.name: gained for text, gained in datatext.compared(tables)}
    assert set(found) == set(OFF)  # the shorter own text is no other text
    for name, gained in found.items():
        places = [(label, budget) for label in TWO for budget in paper.budgets]
        assert [(gain.model, gain.budget) for gain in gained] == places
        assert [gain.difference for gain in gained] == pytest.approx([OFF[name]] * 6)
    # the ladder that laws are fitted to is that of the study's own text alone
    assert len(tables["ladder"]) == 6 and len(tables["repetition"]) == 12


def test_a_step_is_the_difference_of_two_texts_that_differ_by_it_alone(tmp_path):
    found = datatext.steps(tabled(several(tmp_path)))
    pairs = {(step, more.name, less.name) for step, more, less, _ in found}
    assert pairs == {
        ("near_duplicates", "deduplicated", None),
        ("unicode", "normalised", "deduplicated"),
    }
    gains = {step: [gain.difference for gain in gained] for step, *_, gained in found}
    assert gains["near_duplicates"] == pytest.approx([-0.03] * 6)
    assert gains["unicode"] == pytest.approx([-0.02] * 6)


def idle(paper: Paper, name: str, steps, given: int) -> str:
    """A text that the steps after the first `given` leave as it was; returns its id."""
    prepare = paper.text(name, steps)
    path = paper.root / "runs/prepare" / prepare / "record.json"
    record = json.loads(path.read_text())
    for row in record["result"]["cleaning"][given:]:
        row |= {"documents_removed": 0, "bytes_removed": 0}
    path.write_text(json.dumps(record))
    return prepare


def test_a_text_that_a_step_left_as_it_was_is_the_same_text(tmp_path):
    """No difference with an error; but a text whose documents a step changed is another."""
    paper = Paper(tmp_path, sizes=TWO)
    paper.text(None, ("unicode",))
    paper.trained_on(None, DATA, same_text=True)
    paper.trained_on("near", idle(paper, "near", ("unicode", "near_duplicates"), 1))
    tables = tabled(paper)
    assert datatext.compared(tables) == []
    told = data_table.told(tables)
    assert told["texts"][1]["against"] == ("the same text", "near duplicates changed nothing")
    (row,) = told["steps"]["rows"]
    assert row["cells"] == [("the same text", "the step changed nothing")] * 2
    text = page(paper)
    assert "near duplicates changed nothing" in text and "text-gain" not in text

    path = tmp_path / "runs/prepare/text-near/record.json"
    whole = path.read_text()
    record = json.loads(whole)
    record["result"]["tokens"]["train"] //= 2  # of a part of the corpus, by `max_bytes`
    path.write_text(json.dumps(record))
    assert [text.name for text, _ in datatext.compared(tabled(paper))] == ["near"]
    path.write_text(whole)
    record = json.loads(path.read_text())
    record["result"]["cleaning"][1]["documents_changed"] = 1
    path.write_text(json.dumps(record))
    tables = tabled(paper)
    assert [text.name for text, _ in datatext.compared(tables)] == ["near"]
    assert data_table.told(tables)["texts"][1]["against"][0] == "0"


def test_texts_read_to_different_lengths_are_not_compared(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    paper.text(None)
    paper.trained_on(None, DATA, same_text=True, unique_tokens=300_000)
    paper.trained_on("deduplicated", paper.text("deduplicated", ("near_duplicates",)), -0.03)
    ((text, gained),) = datatext.compared(tabled(paper))
    assert text.name == "deduplicated"
    assert {gain.budget for gain in gained} == {200_000}  # here both read new text only


def test_a_text_that_cleaning_made_shorter_than_the_budget_is_compared(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    paper.text(None)
    paper.trained_on(None, DATA, same_text=True)
    short = {**PREPARE["tokens"], "train": 500_000}
    prepare = paper.text("strict", ("length",), tokens=short)
    paper.trained_on("strict", prepare, 0.1, unique_tokens=499_800)  # whole windows of 256
    ((_, gained),) = datatext.compared(tabled(paper))
    assert [gain.budget for gain in gained] == [*paper.budgets] * 2


def test_errors_come_from_held_out_windows_or_from_seeds(tmp_path):
    paper = several(tmp_path / "windows")
    for path in sorted((tmp_path / "windows").rglob("train/*/record.json")):
        record = json.loads(path.read_text())
        record["result"]["loss_standard_error"] = 0.04 if "wiki" in record["id"] else 0.03
        path.write_text(json.dumps(record))
    found = {text.name: gained for text, gained in datatext.compared(tabled(paper))}
    assert found["wiki"][0].error == pytest.approx(0.05)

    tables = tabled(several(tmp_path / "seeds", noise=0.01, seeds=(0, 1, 2)))
    found = {text.name: gained for text, gained in datatext.compared(tables)}
    share, _ = laddertext.seed_noise(tables["ladder"])
    rows = tables["trainings"].query("model == '50k' and budget == 200000")
    losses = rows.groupby(rows["data"].fillna("own"))["loss"].mean()
    error = share * math.hypot(losses["own"], losses["wiki"]) / math.sqrt(3)
    assert found["wiki"][0].error == pytest.approx(error)
    assert found["wiki"][0].difference == pytest.approx(0.25)
    assert "seeds" in data_table.error_words(tables)


def test_fresh_text_against_the_same_over_and_over(tmp_path):
    paper = several(tmp_path)
    runs = datatext.repetition(tabled(paper))
    assert set(runs["token_budget"]) == {800_000} and set(runs["unique_tokens"]) == {2e5, 8e5}
    assert len(runs) == 2 * len(TWO)
    entry = drawn(paper)["unique-tokens"]
    assert entry["section"] == "data" and "read theirs 4.0 times" in entry["caption"]


def test_repetition_is_shown_at_a_budget_that_its_sizes_share(tmp_path):
    paper = several(tmp_path)
    few = {"role": "ladder", "data": "quarter", "same_text": True}
    # one size went on alone to a larger budget, on both lengths
    for named in (few, {"role": "ladder", "same_text": True}):
        unique = 200_000 if "data" in named else 1_600_000
        changed = {"unique_tokens": unique}
        paper.train("50k", shape_of_size(50_000), 1_600_000, 0, named, changed)
    assert set(datatext.repetition(tabled(paper))["token_budget"]) == {800_000}


def test_the_section_shows_what_was_counted(tmp_path):
    paper = several(tmp_path)
    text = page(paper)
    assert 'id="data"' in text and {"unique-tokens", "text-gain"} <= set(drawn(paper))
    told = data_table.told(tabled(paper))
    rows = {row["name"]: row for row in told["texts"]}
    assert rows["quarter"]["counts"] == ["1,400", "26.7 MiB", "8,000,000", "200,000", "–"]
    # what is like held-out text is dropped of another corpus; of its own it is that text itself
    dropped = {name: row["counts"][-1] for name, row in rows.items()}
    assert dropped.pop("wiki") == "7" and set(dropped.values()) == {"–"}
    assert rows["normalised"]["steps"] == "unicode and near duplicates"
    assert rows["wiki"]["against"][0] == "+0.25" and rows[datatext.OWN]["against"][0] == ""
    # the same 1,400 documents, a tenth less at each step
    assert [row["cells"][0] for row in told["cleaning"]] == ["140", "140", "126"]
    assert [row["cells"][3] for row in told["cleaning"]] == ["1,260", "1,260", "1,134"]
    for step in told["steps"]["rows"]:
        assert all(note == "800k tokens" for _, note in step["cells"])


def test_one_text_as_it_came_has_no_section(tmp_path):
    text = page(Paper(tmp_path, sizes=TWO).ladder())
    assert 'id="data"' not in text


def test_cleaning_of_the_only_text_is_shown(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    paper.text(None, ("unicode",))
    told = data_table.told(tabled(paper.ladder()))
    assert [row["step"] for row in told["cleaning"]] == ["unicode"] and told["words"] == []


def test_the_same_tables_give_the_same_bytes_in_another_process(tmp_path):
    paper = several(tmp_path)
    for label, optimum in {"50k": 0.7, "120k": 1.3}.items():
        paper.rates(label, 800_000, optimum)
    names = drawn(paper)
    assert {"rates", "unique-tokens", "text-gain"} <= set(names)
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
