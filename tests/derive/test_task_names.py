"""What a task is called beside others, and which of its metrics tells it."""

from __future__ import annotations

import pandas
import pytest
from study_on_paper import Paper, shape_of_size
from test_collect import collected

from llama_bench.derive import forecast
from llama_bench.derive.figures import tasks
from llama_bench.derive.tables import main_metric, study_tables
from llama_bench.derive.words import key_table, noisetext, scores
from llama_bench.specs import ForecastSpec

SIZES = {"50k": 50_000, "700k": 700_000}


def score(task: str, metric: str, value: float, filter="none", first=False) -> dict:
    about = {"task": task, "filter": filter, "first": first, "standard_error": 0.05, "items": 1}
    return about | {"metric": metric, "value": value, "chance": None, "higher_is_better": True}


@pytest.fixture
def tables(tmp_path):
    """`mt` in two suites, `sums` read by two filters, `plain` as it is."""
    paper = Paper(tmp_path, sizes=SIZES)
    for place, (label, size) in enumerate(SIZES.items()):
        for suite in ("none", "five"):
            rows = [
                score("mt", "exact_match", 0.0),
                score("mt", "bleu", 20.0 + 9 * place, first=True),
                score("mt", "ter", 50.0),
            ]
            if suite == "none":
                rows += [score("sums", "exact_match", 0.2 + place, f) for f in ("strict", "any")]
                rows += [score("plain", "acc", 0.2 + place / 2, first=True)]
            named, changed = {"suite": suite}, {"scores": rows, "answers": []}
            paper.evaluate(label, shape_of_size(size), 800_000, 0, named=named, changed=changed)
    collected(paper)
    return study_tables.read(tmp_path / "tables" / "runs.parquet")


def test_suites_and_filters_are_named_where_they_tell_apart_and_only_there(tables):
    called = scores.namer(scores.told(tables))
    assert called("none", "mt", "none") == "mt (none)" and called("five", "mt") == "mt (five)"
    assert called("none", "sums", "any") == "sums (any)"
    assert called("none", "plain", "none") == "plain"
    titles = [figure.title for figure in tasks.draw(tables, [])]
    assert sorted(titles) == [
        "mt (five): BLEU",
        "mt (none): BLEU",
        "plain: accuracy",
        "sums (any): exact match",
        "sums (strict): exact match",
    ]
    columns, _ = key_table.key_table(tables)
    names = {column["name"].removesuffix(scores.BLURRED).strip() for column in columns}
    assert {"mt (five)", "mt (none)", "sums (any)", "sums (strict)", "plain"} <= names
    (said,) = noisetext.words(tables)
    assert all(name in said for name in ("mt (five)", "mt (none)", "sums (any)")), said


def test_one_item_is_one(tables):
    assert all(" 1 item." in f" {figure.caption}" for figure in tasks.draw(tables, []))


def test_a_task_is_told_by_what_its_file_lists_first(tables):
    assert scores.own_metrics(tables) == {"mt": "bleu", "plain": "acc"}
    main = scores.main(tables).groupby("task")["metric"].unique().map(list).to_dict()
    assert main == {"mt": ["bleu"], "plain": ["acc"], "sums": ["exact_match"]}


def test_pairs_and_forecasts_are_of_the_same_metric(tmp_path):
    paper, metrics = Paper(tmp_path, sizes=SIZES), ("exact_match", "quality")
    for place, (label, size) in enumerate(SIZES.items()):
        rows = [score("mine", name, 0.5 + place, first=name == "quality") for name in metrics]
        changed = {"scores": rows, "answers": []}
        folder = paper.evaluate(label, shape_of_size(size), 800_000, 0, changed=changed)
        about = {"task": "mine", "filter": "none", "choice": 0, "gold": None, "bytes": None}
        about |= {"log_likelihood": None, "doc_hash": "h"}
        items = [
            about
            | {"doc_id": item}
            | {"statistics": [{"metric": name, "sums": [item + place, 1.0]} for name in metrics]}
            for item in (0, 1)
        ]
        pandas.DataFrame(items).to_parquet(folder / "items.parquet")
    assert {row["metric"] for row in collected(paper)["pairs"]} == {"quality"}
    found = pandas.DataFrame(rows)
    table = pandas.DataFrame({"run": ["a"]})
    asked = ForecastSpec(runs=("a",), points=(), tasks=("mine",), evaluations=())
    (left_out,) = forecast.forecast_scores(table, found.assign(run="a"), asked)["left_out"]
    assert left_out["why"] == "no law is of its metric, quality"


def test_a_perplexity_stands_beside_what_counts_right_answers():
    assert main_metric.of(["perplexity", "acc"], "perplexity") == "acc"
    assert main_metric.of(["perplexity", "anything"], "perplexity") == "perplexity"
    assert main_metric.of(["ter", "bleu"], None) == "bleu"
    assert main_metric.of(["ter", "bleu"], "ter") == "ter"
