"""The tables hold exactly what the records say, the same bytes for the same records."""

from __future__ import annotations

import csv
import json

import pyarrow.parquet as parquet
import pytest
from study_on_paper import BUDGETS, SIZES, VOCAB, Paper, law

from llama_bench.derive import collect, fit
from llama_bench.derive.tables import study_tables
from llama_bench.fields import UserError
from llama_bench.shape import shape_of_size


def collected(paper: Paper, folder="tables") -> dict[str, list[dict]]:
    output = paper.root / folder / "runs.parquet"
    collect.run(paper.spec(), output, [])
    return {
        name: parquet.read_table(output.with_name(f"{name}.parquet")).to_pylist()
        for name in study_tables.COLUMNS
    }


def test_ladder_returns_the_numbers_that_were_put_in(tmp_path):
    found = collected(Paper(tmp_path).whole())
    asked = [
        (shape_of_size(size).size, budget, label)
        for label, size in SIZES.items()
        for budget in BUDGETS
    ]
    assert [(row["params"], row["tokens"], row["model"]) for row in found["ladder"]] == asked
    for row in found["ladder"]:
        shape = shape_of_size(SIZES[row["model"]])
        assert row["loss"] == law(row["params"], row["tokens"])
        assert row["flops"] == shape.flops_per_token(VOCAB, 256) * row["tokens"]
    # a column `budget` is one of compute to `fit`; the study's budgets are tokens
    assert [row["token_budget"] for row in found["ladder"]] == [tokens for _, tokens, _ in asked]
    assert {row["budget"] for row in found["ladder"]} == {None}
    first = found["trainings"][0]
    counts = shape_of_size(SIZES["50k"]).parameters(VOCAB)
    assert {way: first[f"parameters_{way}"] for way in counts} == counts
    assert first["learning_rate"] == 0.003 and first["layers"] == shape_of_size(50_000).layers


def test_a_law_is_fitted_to_the_ladder_as_it_lies_there(tmp_path):
    collected(Paper(tmp_path).whole())
    fit.run("chinchilla", tmp_path / "fit.json", [tmp_path / "tables" / "ladder.parquet"])
    found = json.loads((tmp_path / "fit.json").read_text())
    assert found["status"] == "converged"
    assert len(found["back_test"]["folds"]) > len(BUDGETS)
    for name, truth in {"E": 1.8, "alpha": 0.33, "beta": 0.37}.items():
        assert found["parameters"][name]["value"] == pytest.approx(truth, rel=1e-3)


def test_every_repeat_and_every_cell_has_a_row(tmp_path):
    found = collected(Paper(tmp_path).whole())
    assert len(found["memory"]) == len(SIZES) * 3 * 4
    assert len(found["speeds"]) == len(SIZES) * 3 * 4 * 4
    for row in found["speeds"]:
        assert row["tokens_per_second"] == row["tokens"] / row["seconds"]
    repeats = [row["repeat"] for row in found["speeds"][:4]]
    assert repeats == [0, 1, 2, 3]


def test_all_tables_are_written_also_empty_ones_with_their_columns(tmp_path):
    found = collected(Paper(tmp_path))
    assert all(rows == [] for rows in found.values())
    for name, columns in study_tables.COLUMNS.items():
        schema = parquet.read_schema(tmp_path / "tables" / f"{name}.parquet")
        assert schema.names == list(columns)
        with open(tmp_path / "tables" / f"{name}.csv") as file:
            assert next(csv.reader(file)) == list(columns)


def test_csv_says_the_same_as_parquet(tmp_path):
    found = collected(Paper(tmp_path).whole())
    with open(tmp_path / "tables" / "ladder.csv") as file:
        exported = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in exported] == [row["loss"] for row in found["ladder"]]


def test_same_records_same_bytes(tmp_path):
    paper = Paper(tmp_path).whole()
    collected(paper, "once")
    collected(paper, "again")
    for file in sorted((tmp_path / "once").iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_a_run_without_a_record_is_listed_and_nothing_is_made_up_for_it(tmp_path):
    paper = Paper(tmp_path)
    labels = {"model": "5M", "seed": 0, "budget": 800_000}
    paper.add("train", "5M-800k-s0", labels, {}, {}, record=False)
    found = collected(paper)
    (row,) = found["runs"]
    assert row["status"] == "missing record" and row["model"] == "5M"
    assert row["seconds_total"] is None and row["log"].endswith("log.txt")
    assert found["trainings"] == found["ladder"] == found["provenance"] == []


def test_a_diverged_training_stands_among_trainings_but_not_on_the_ladder(tmp_path):
    paper = Paper(tmp_path)
    shape = shape_of_size(300_000)
    paper.train("300k", shape, 200_000, status="diverged", reason="the loss is 40 at step 7")
    found = collected(paper)
    (training,) = found["trainings"]
    assert (training["status"], training["loss"]) == ("diverged", None)
    assert training["parameters_without_embeddings"] == shape.size
    assert found["ladder"] == []
    assert found["failures"][0]["reason"] == "the loss is 40 at step 7"


def test_one_training_under_two_names_of_the_study(tmp_path):
    paper = Paper(tmp_path)
    paper.train("300k", shape_of_size(300_000), 200_000)
    paper.runs.append({**paper.runs[0], "labels": {**paper.runs[0]["labels"], "model": "twin"}})
    assert [row["model"] for row in collected(paper)["ladder"]] == ["300k", "twin"]


@pytest.mark.parametrize("content", ["", "{", '{"id": "x"}', "[]"])
def test_a_damaged_record_is_named(tmp_path, content):
    paper = Paper(tmp_path)
    folder = paper.train("300k", shape_of_size(300_000), 200_000)
    (folder / "record.json").write_text(content)
    with pytest.raises(UserError, match=r"300k-200000-s0/record.json"):
        collected(paper)


def test_a_record_whose_result_is_not_its_verbs_is_named(tmp_path):
    paper = Paper(tmp_path)
    paper.add("evaluate", "300k-eval", {"model": "300k"}, {"scores": [3]}, {"train": "x"})
    with pytest.raises(UserError, match=r"300k-eval/record.json: holds no result"):
        collected(paper)


def test_a_record_in_anothers_folder_is_named(tmp_path):
    paper = Paper(tmp_path)
    paper.train("300k", shape_of_size(300_000), 200_000)
    paper.runs[0]["id"] = "another"
    with pytest.raises(UserError, match="not of another"):
        collected(paper)


def test_a_damaged_curve_is_named_with_its_line(tmp_path):
    paper = Paper(tmp_path)
    folder = paper.train("300k", shape_of_size(300_000), 200_000)
    curve = folder / "curve.csv"
    curve.write_text(curve.read_text() + "what,is,this\n")
    with pytest.raises(UserError, match=r"curve.csv: line 102 "):
        collected(paper)


def test_the_spec_may_be_a_file(tmp_path):
    paper = Paper(tmp_path)
    paper.probe("300k", shape_of_size(300_000))
    (tmp_path / "listing.json").write_text(paper.spec())
    collect.run(str(tmp_path / "listing.json"), tmp_path / "tables" / "runs.parquet", [])
    assert parquet.read_table(tmp_path / "tables" / "runs.parquet").num_rows == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{", "is not JSON"),
        ('{"study": "x"}', "runs: is missing"),
        ("nowhere.json", "nowhere.json: cannot be read"),
        ('{"study": "x", "runs": [{"id": "a"}]}', "needs id, verb and path"),
        ('{"study": "x", "runs": [{"id": "a", "verb": "b", "path": "c"}]}', "unknown verb"),
    ],
)
def test_a_wrong_spec_is_one_message(tmp_path, spec, message):
    with pytest.raises(UserError, match=message):
        collect.run(spec, tmp_path / "runs.parquet", [])
