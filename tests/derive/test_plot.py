"""Figures: the same bytes from the same tables, none that is empty, no curve of a failed fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
from study_on_paper import Paper, shape_of_size

from llama_bench.derive import collect, fit, plot
from llama_bench.fields import UserError

LOSS = {"loss-parameters", "loss-tokens", "loss-flops", "training-curves"}
PROBED = {
    *("speed-prefill", "speed-decode", "speed-train", "memory", "memory-context"),
    *("latency-prefill", "latency-decode"),
}
LIMITED = {"mfu-prefill", "mbu-decode"}  # where the device's limits were measured
TRADED = {  # where there are several models to choose from
    *("tradeoff-time", "tradeoff-memory", "tradeoff-time-heldout-heldout_next_line-acc"),
    "tradeoff-time-heldout-heldout_bits_per_byte-bits_per_byte",
}
LOADED = {
    "tradeoff-time-heldout-heldout_next_line-acc",
    *(
        f"tradeoff-{cost}-heldout-heldout_bits_per_byte-bits_per_byte"
        for cost in ("time", "memory")
    ),
}
COST = PROBED | LIMITED
TASKS = {"score-heldout-heldout_next_line-acc", "score-heldout-heldout_bits_per_byte-bits_per_byte"}
TOKENS = {"tokens-heldout_next_line-acc", "tokens-heldout_bits_per_byte-bits_per_byte"}


def tabled(paper: Paper) -> Path:
    output = paper.root / "tables" / "runs.parquet"
    collect.run(paper.spec(), output, [])
    return output


def drawn(paper: Paper, *fits: Path) -> dict[str, dict]:
    index = paper.root / "figures" / "index.json"
    plot.run('{"study": "paper"}', index, [tabled(paper), *fits])
    return {entry["name"]: entry for entry in json.loads(index.read_text())}


def fitted(paper: Paper) -> Path:
    path = paper.root / "fits" / "chinchilla.json"
    fit.run("chinchilla", path, [tabled(paper).with_name("ladder.parquet")])
    return path


def words(file: Path) -> str:
    """All text of an SVG, which also shows that it is well-formed."""
    return " ".join(xml.parse(file).getroot().itertext())


def trained_only(root):
    paper = Paper(root)
    for label in ("50k", "300k"):
        paper.train(label, shape_of_size(paper.sizes[label]), 200_000)
    return paper


def one_size(root):
    return Paper(root, sizes={"300k": 300_000}).whole()


def one_budget(root):
    return Paper(root, budgets=(200_000,)).whole()


def pretrained_only(root):
    paper = Paper(root)
    paper.pretrained("stories260K", shape_of_size(260_000))
    paper.pretrained("stories3M", shape_of_size(3_000_000))
    return paper


def only_failures(root):
    paper = Paper(root)
    folder = paper.train("300k", shape_of_size(300_000), 200_000, status="diverged", reason="no")
    (folder / "curve.csv").unlink()
    paper.evaluate("50k", shape_of_size(50_000), 200_000, 0, status="skipped", reason="no")
    return paper


def nothing(root):
    return Paper(root)


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (trained_only, LOSS - {"loss-tokens"}),
        (one_size, (LOSS - {"loss-parameters"}) | TASKS | TOKENS | COST),
        (one_budget, (LOSS - {"loss-tokens"}) | TASKS | COST | TRADED),
        (pretrained_only, TASKS | PROBED | LOADED),
        (only_failures, set()),
        (nothing, set()),
    ],
)
def test_what_has_data_is_drawn_and_nothing_else(tmp_path, study, expected):
    entries = drawn(study(tmp_path))
    assert set(entries) == expected
    for entry in entries.values():
        text = words(tmp_path / "figures" / entry["file"])
        assert entry["caption"] in text and "nan" not in text
    assert len(list((tmp_path / "figures").glob("*.svg"))) == len(expected)


def test_a_whole_study_with_its_law(tmp_path):
    paper = Paper(tmp_path, noise=0.002).whole()
    paper.pretrained("stories3M", shape_of_size(3_000_000))
    entries = drawn(paper, fitted(paper))
    assert set(entries) == LOSS | TASKS | TOKENS | COST | LOADED | {
        *("tradeoff-time", "law-chinchilla")
    }
    assert [e["section"] for e in entries.values()] == sorted(
        (e["section"] for e in entries.values()),
        key=["loss", "law", "tasks", "task-details", "cost", "cost-details"].index,
    )
    ticks = words(tmp_path / "figures" / "loss-parameters.svg")
    assert "100k" in ticks and "1M" in ticks and "1e" not in ticks
    scores = words(tmp_path / "figures" / "score-heldout-heldout_next_line-acc.svg")
    assert "stories3M" in scores and "chance" in scores
    assert "Wilson" in entries["score-heldout-heldout_next_line-acc"]["caption"]


def test_seeds_are_drawn_as_mean_and_spread(tmp_path):
    entries = drawn(Paper(tmp_path, noise=0.01, budgets=(200_000,), seeds=(0, 1, 2)).whole())
    assert "means over up to 3 seeds" in entries["loss-parameters"]["caption"]
    assert "each seed is a dot" in entries["score-heldout-heldout_next_line-acc"]["caption"]


def test_the_same_tables_give_the_same_bytes_in_another_process(tmp_path):
    paper = Paper(tmp_path, noise=0.002).whole()
    law = fitted(paper)
    drawn(paper, law)
    inputs = [str(tmp_path / "tables" / "runs.parquet"), str(law)]
    command = [sys.executable, "-m", "llama_bench", "plot", '{"study": "paper"}']
    subprocess.run(
        [*command, str(tmp_path / "again" / "index.json"), *inputs],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
    )
    for file in sorted((tmp_path / "figures").iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_a_fit_that_did_not_converge_is_never_drawn(tmp_path):
    paper = Paper(tmp_path, noise=0.002).ladder()
    law = fitted(paper)
    figure = tmp_path / "figures" / "loss-flops.svg"
    bare = drawn(paper)["loss-flops"]
    without = _shapes(figure)
    good = drawn(paper, law)
    assert _shapes(figure) > without
    assert "law chinchilla for each size" in good["loss-flops"]["caption"]

    content = json.loads(law.read_text())
    for status in ("at-bounds", "ill-posed", "too-few-points"):
        law.write_text(json.dumps({**content, "status": status}))
        entries = drawn(paper, law)
        assert "law-chinchilla" not in entries
        assert _shapes(figure) == without
        note = f"No curve of chinchilla is drawn: its fit ended {status}."
        assert entries["loss-flops"]["caption"] == f"{bare['caption']} {note}"


def _shapes(file: Path) -> int:
    return sum(1 for node in xml.parse(file).iter() if node.tag.endswith("path"))


def test_wrong_inputs_are_one_message(tmp_path):
    paper = Paper(tmp_path).whole()
    runs = tabled(paper)
    index = tmp_path / "figures" / "index.json"
    with pytest.raises(UserError, match=r"needs one runs.parquet"):
        plot.run('{"study": "paper"}', index, [])
    damaged = tmp_path / "law.json"
    damaged.write_text("{}")
    with pytest.raises(UserError, match=r"law.json: is no fit file"):
        plot.run('{"study": "paper"}', index, [runs, damaged])
    runs.with_name("scores.parquet").write_text("no table")
    with pytest.raises(UserError, match=r"scores.parquet: is no table"):
        plot.run('{"study": "paper"}', index, [runs])


def test_two_scores_of_the_same_answers_share_a_figure(tmp_path):
    paper = Paper(tmp_path, budgets=(200_000,)).whole()
    for path in (tmp_path / "runs" / "evaluate").glob("*/record.json"):
        record = json.loads(path.read_text())
        scores = record["result"]["scores"]
        (next_line,) = (score for score in scores if score["metric"] == "acc")
        scores.append(next_line | {"metric": "acc_norm", "value": next_line["value"] / 2})
        path.write_text(json.dumps(record))
    entries = drawn(paper)
    assert {name for name in entries if name.startswith("score-")} == TASKS
    (name,) = (name for name in TASKS if name.endswith("-acc"))
    assert "divided by its length" in entries[name]["caption"]
    assert "normalised" in words(tmp_path / "figures" / f"{name}.svg")
