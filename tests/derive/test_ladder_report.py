"""What the report says of the ladder itself: shared trunks, averages, seeds, rates, isoFLOP."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest
from pages_on_paper import drawn, page, tabled
from study_on_paper import Paper, shape_of_size

from llama_bench.derive.words import laddertext, ratetext

TWO = {"50k": 50_000, "120k": 120_000}
LARGEST = 800_000


def labels(file: Path) -> list[str]:
    """The texts of an SVG, without its title and caption."""
    return [node.text for node in xml.parse(file).iter() if node.tag.endswith("}text")]


def trunks(root) -> Paper:
    """Two sizes whose budgets of 200k, 400k and 800k share a trunk that is left at four fifths."""
    paper = Paper(root, sizes=TWO)
    for label, size in TWO.items():
        before = 0
        for budget in paper.budgets:
            own = {"trained_tokens": budget - before, "mfu": 0.42, "compiled": True}
            ends = {"trunk_loss": 5.0, "averaged_loss": 4.3, "of_loss": lambda loss: 4.0}
            paper.train(label, shape_of_size(size), budget, changed=own | ends)
            before = int(0.8 * budget)
    return paper


def test_what_shared_trunks_saved(tmp_path):
    tables = tabled(trunks(tmp_path))
    # 200 + (400 - 160) + (800 - 320) of 1,400 thousand tokens, for each of the sizes
    assert laddertext.saving(tables["trainings"]) == (6, 2_800_000, 1_840_000)
    assert any("6 trainings of 2.8M tokens" in text for text in laddertext.words(tables))


def test_nothing_was_saved_where_nothing_is_shared(tmp_path):
    tables = tabled(Paper(tmp_path, sizes=TWO).ladder())
    assert laddertext.saving(tables["trainings"]) is None
    assert laddertext.words(tables) == []


def test_batches_that_differ_between_sizes_are_said(tmp_path):
    paper = Paper(tmp_path, sizes=TWO).ladder()
    assert not [text for text in laddertext.words(tabled(paper)) if "Not only size" in text]
    for path in sorted(tmp_path.glob("runs/train/120k-*/record.json")):
        record = json.loads(path.read_text())
        record["spec"]["batch"] *= 2
        record["result"]["steps"] //= 2
        path.write_text(json.dumps(record))
    (text,) = [text for text in laddertext.words(tabled(paper)) if "Not only size" in text]
    assert (
        "at 800k tokens the batch is 1,024 tokens in an optimizer step and 781 steps for 50k"
        in text
    )
    assert "2,048 tokens in an optimizer step and 390 steps for 120k" in text


def test_the_averaged_trunk_against_the_annealed_loss(tmp_path):
    paper = trunks(tmp_path)
    runs = laddertext.averages(tabled(paper)["trainings"])
    assert len(runs) == 6
    assert list(runs["excess"]) == pytest.approx([7.5] * 6)  # 4.3 over 4.0
    assert list(runs["share"]) == pytest.approx([0.7] * 6)  # from 5.0 to 4.3 of 5.0 to 4.0
    assert drawn(paper)["averaging"]["section"] == "loss"
    assert "averaging" not in drawn(Paper(tmp_path / "without", sizes=TWO).ladder())


def test_the_key_table_has_the_use_of_the_processor_where_it_was_measured(tmp_path):
    text = page(trunks(tmp_path / "measured"))
    assert text.count("42 %<small>compiled</small>") == len(TWO)
    assert "MFU" not in page(Paper(tmp_path / "not", sizes=TWO).ladder())


def test_the_noise_between_seeds_is_pooled_over_sizes_and_budgets(tmp_path):
    paper = Paper(tmp_path, sizes=TWO, budgets=(200_000,))
    losses = {"50k": (5.0, 5.1, 5.05), "120k": (4.0, 4.2)}
    for label, ends in losses.items():
        for seed, loss in enumerate(ends):
            changed = {"of_loss": lambda _, loss=loss: loss}
            paper.train(label, shape_of_size(TWO[label]), 200_000, seed, changed=changed)
    share, runs = laddertext.seed_noise(tabled(paper)["ladder"])
    squares = [2 * np.var(losses["50k"], ddof=1) / 5.05**2, np.var(losses["120k"], ddof=1) / 4.1**2]
    assert share == pytest.approx(math.sqrt(sum(squares) / 3)) and runs == 5
    assert laddertext.seed_noise(tabled(Paper(tmp_path / "one").ladder())["ladder"]) is None


def strip(root, small: float, large: float, error=None, **told) -> tuple[Paper, list]:
    """Two sizes whose best rates are those factors of the recipe's, and their measured rates."""
    paper = Paper(root, sizes=TWO)
    known = {"loss_standard_error": error} if error else {}
    for label, optimum in zip(TWO, (small, large), strict=True):
        paper.train(label, shape_of_size(TWO[label]), LARGEST, changed=known)
        paper.rates(label, LARGEST, optimum, **known, **told)
    return paper, ratetext.rates(tabled(paper))


@pytest.mark.parametrize(("small", "large", "drifts"), [(0.7, 1.3, True), (0.9, 1.2, False)])
def test_the_optimum_that_was_put_in_is_found_and_its_drift_is_flagged(
    tmp_path, small, large, drifts
):
    paper, measured = strip(tmp_path, small, large)
    assert [entry.model for entry in measured] == ["50k", "120k"]
    assert [entry.optimum for entry in measured] == pytest.approx([small, large])
    assert bool(ratetext.drift(measured)) is drifts
    text = page(paper)
    assert ('class="banner" role="note"' in text) is drifts and "rates" in drawn(paper)
    # what lies beside the ladder is no part of it
    assert len(tabled(paper)["ladder"]) == 2 and "2 Llamas" in text


def test_an_optimum_beyond_the_rates_tried_is_flagged(tmp_path):
    _, measured = strip(tmp_path, 1.0, 4.0)
    assert (measured[1].optimum, measured[1].edge) == (None, 2.0)
    assert "120k" in ratetext.drift(measured) and "50k" not in ratetext.drift(measured)


def test_what_lies_within_the_noise_is_not_flagged(tmp_path):
    _, measured = strip(tmp_path, 0.7, 4.0, error=0.5)
    assert all(entry.flat and entry.edge is None for entry in measured)
    assert ratetext.drift(measured) == ""


def test_seeds_tell_the_noise_of_a_difference(tmp_path):
    paper, _ = strip(tmp_path, 0.7, 1.3, error=0.5)
    for seed, off in ((1, 0.01), (2, -0.01)):
        changed = {"of_loss": lambda loss, off=off: loss * (1 + off)}
        paper.train("50k", shape_of_size(50_000), LARGEST, seed, changed=changed)
    small, _ = ratetext.rates(tabled(paper))
    mean = np.mean(list(small.losses.values()))
    assert small.noise == pytest.approx(0.01 * math.sqrt(2) * mean)
    assert not small.flat and small.optimum == pytest.approx(0.7)


def test_a_sweep_is_read_along_its_sizes(tmp_path):
    paper = Paper(tmp_path)
    for label, optimum in {"50k": 0.6, "300k": 1.0, "1.6M": 1.4}.items():
        paper.rates(label, 200_000, optimum, "sweep", (0.25, 0.5, 1.0, 2.0))
    measured = ratetext.rates(tabled(paper))
    assert [entry.optimum for entry in measured] == pytest.approx([0.6, 1.0, 1.4])
    assert "at 50k" in ratetext.drift(measured) and "at 1.6M" in ratetext.drift(measured)
    assert ratetext.drift(measured[:2]) == ratetext.drift(measured).replace("1.4", "1.0").replace(
        "1.6M", "300k"
    )


def test_a_rate_that_diverged_is_told_and_is_no_edge(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    for label, size in TWO.items():
        paper.train(label, shape_of_size(size), LARGEST)
        paper.rates(label, LARGEST, 1.0, factors=(0.5,))
        high = {"role": "sensitivity", "factor": 2.0}
        paper.train(label, shape_of_size(size), LARGEST, 0, high, status="diverged", reason="no")
    tables = tabled(paper)
    measured = ratetext.rates(tables)
    assert [entry.diverged for entry in measured] == [(2.0,), (2.0,)]
    assert [(entry.best, entry.edge) for entry in measured] == [(1.0, None)] * 2
    assert ratetext.drift(measured) == ""
    assert any("120k at 2 times" in text for text in ratetext.words(tables))
    assert "2 runs that diverged" in drawn(paper)["rates"]["caption"]


def grid(root, sizes=(46_000, 68_000, 100_000, 150_000, 220_000)) -> Paper:
    """isoFLOP: sizes about the optimum of three budgets; at the least one, only small sizes."""
    paper = Paper(root, sizes={f"{size}": size for size in (*sizes, 320_000, 460_000)})
    known = [shape_of_size(size) for size in paper.sizes.values()]
    for flops, shapes in ((1e12, known[:4]), (3e12, known[:5]), (9e12, known[:2])):
        for shape in shapes:
            tokens = round(flops / shape.flops_per_token(2048, 256))
            label = next(name for name in paper.sizes if shape_of_size(int(name)) == shape)
            paper.train(label, shape, tokens, named={"flop_budget": flops, "role": "ladder"})
    return paper


def test_runs_of_equal_compute_are_joined_and_their_minima_marked(tmp_path):
    entries = drawn(grid(tmp_path), "isoflop")
    assert "loss-parameters" not in entries
    written = labels(tmp_path / "figures" / "isoflop.svg")
    assert "minimum" in written
    assert {"10¹²", "3 × 10¹²", "9 × 10¹²"} <= set(written)
    minima = json.loads((tmp_path / "fits" / "isoflop.json").read_text())["minima"]
    found = [entry for entry in minima if entry["params"] is not None]
    caption = entries["isoflop"]["caption"]
    assert 1 <= len(found) < len(minima)
    assert caption.count("No minimum at") == len(minima) - len(found)
    assert "2 sizes; akima takes 4" in caption


def test_compute_budgets_without_a_fit_are_drawn_without_minima(tmp_path):
    entries = drawn(grid(tmp_path))
    assert "minimum" not in labels(tmp_path / "figures" / "isoflop.svg")
    assert not re.search("Stars|No minimum", entries["isoflop"]["caption"])
