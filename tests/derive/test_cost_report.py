"""What the report shows of speed, memory, energy and money, and what quality they buy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as xml

import numpy as np
import pytest
from cost_on_paper import TWO, cells_only, changed_cells, drawn, small, tabled
from study_on_paper import CONFIG, VOCAB, Paper, shape_of_size

from llama_bench.derive import plot, report
from llama_bench.derive.tables import study_tables
from llama_bench.derive.words import (
    cost_table,
    costtext,
    headline,
    key_table,
    show,
    tradeoff,
    ways,
)

SHOWN = {"tradeoff-time", "tradeoff-memory", "speed-prefill", "speed-decode", "memory"}
DETAILS = {"mfu-prefill", "mbu-decode", "speed-train", "latency-prefill", "latency-decode"}


def page(paper: Paper, **probe) -> str:
    tabled(paper, **probe)
    runs, index = paper.root / "tables" / "runs.parquet", paper.root / "figures" / "index.json"
    plot.run('{"study": "paper"}', index, [runs])
    asked = json.dumps({"study": "paper", "config": CONFIG})
    report.run(asked, paper.root / "r.html", [runs, index])
    return (paper.root / "r.html").read_text()


def words(paper: Paper, name: str) -> str:
    return " ".join(xml.parse(paper.root / "figures" / f"{name}.svg").getroot().itertext())


def test_energy_without_a_counter_is_missing_and_said_once(tmp_path):
    paper = small(tmp_path)
    assert not {"energy", "tradeoff-energy"} & set(drawn(paper))
    said = [text for text in costtext.words(tabled(paper)) if "Energy" in text]
    assert said == ["Energy was not measured: this machine shows no energy counter."]


def test_no_price_no_money(tmp_path):
    paper = small(tmp_path)
    drawn(paper, "tradeoff-time")
    assert tabled(paper)["cells"]["price_per_million_tokens"].isna().all()
    assert "Price" not in words(paper, "tradeoff-time")
    drawn(paper, "tradeoff-time", price_per_hour=2.0)
    assert "Price per million tokens" in words(paper, "tradeoff-time")


def test_a_cold_start_is_told_by_its_parts_and_is_no_speed(tmp_path):
    paper = cells_only(tmp_path, load=True)
    tables = tabled(paper)
    starts = tables["speeds"].query("phase == 'load'")
    assert list(starts["import_seconds"]) == [4.0] * 4 and starts["tokens_per_second"].isna().all()
    assert set(tables["cells"].query("phase == 'load'")["median_seconds"]) == {7.0}
    names = drawn(paper)
    assert "cold-start" in names and "speed-load" not in names


def test_a_start_that_is_known_as_a_whole_stands_beside_those_in_parts(tmp_path):
    """A vLLM server's: it does not tell how long its imports took."""
    paper = cells_only(tmp_path, load=True)
    paper.probe("50k", shape_of_size(50_000), engine="vllm", load=True)
    path = next(path for path in tmp_path.glob("runs/probe/*/record.json") if "vllm" in str(path))
    record = json.loads(path.read_text())
    record["result"]["cells"][-1] |= {"import_seconds": None, "load_seconds": [6.0, 6.0]}
    path.write_text(json.dumps(record))
    caption = drawn(paper, "cold-start")["cold-start"]["caption"]
    found = words(paper, "cold-start")
    assert found.count("vllm") > caption.count("vllm") and "float32" in found
    assert "Of vllm interpreter, libraries and weights are one time" in caption
    assert "300k" in found
    for engine, precision in (("static", None), ("static", "bfloat16")):
        for label, size in TWO.items():
            more = {"engine": engine, "precision": precision, "load": True}
            paper.probe(label, shape_of_size(size), **more)
    drawn(paper, "cold-start")
    found = words(paper, "cold-start")
    assert "300k" in found and "50k" not in found, "seven bars have no room for names"


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1, 3), (2, 2), (3, 1)], [True, True, True]),
        ([(1, 1), (2, 2), (3, 3)], [True, False, False]),
        ([(1, 2), (1, 1), (2, 1)], [False, True, False]),
        ([(1, 1), (1, 1)], [True, True]),
    ],
)
def test_what_nothing_beats_is_on_the_front(points, expected):
    assert list(tradeoff.front(*zip(*points, strict=True))) == expected


def test_the_front_of_a_study_is_its_largest_budgets(tmp_path):
    paper = Paper(tmp_path).whole()
    tables = study_tables.own_ladder(tabled(paper))
    first, *others = tradeoff.qualities(tables)
    assert first.name == "loss" and {each.name for each in others} == {
        "heldout-heldout_next_line-acc",
        "heldout-heldout_bits_per_byte-bits_per_byte",
    }
    for quality in (first, *others):
        points = tradeoff.points(quality, tradeoff.costs(tables), "seconds")
        assert len(points) == len(paper.sizes) * len(paper.budgets)
        assert set(points.loc[points["front"], "budget"]) == {max(paper.budgets)}


def test_models_trained_elsewhere_are_compared_where_all_were_scored(tmp_path):
    paper = small(tmp_path)
    paper.pretrained("stories3M", shape_of_size(3_000_000))
    first = tradeoff.qualities(study_tables.own_ladder(tabled(paper)))[0]
    assert first.name.endswith("bits_per_byte")
    assert set(first.rows["model"]) == {*TWO, "stories3M"}


def test_quantized_weights_are_not_given_the_quality_of_the_others(tmp_path):
    paper = small(tmp_path)
    paper.probe("50k", shape_of_size(50_000), precision="int8", faster=9)
    tables = study_tables.own_ladder(tabled(paper))
    assert set(tables["cells"]["precision"]) == {"float32", "int8"}
    assert set(tradeoff.costs(tables)["precision"]) == {"float32"}


def test_few_figures_stand_open_and_the_rest_under_details(tmp_path):
    paper = small(tmp_path)
    text = page(paper)
    entries = json.loads((tmp_path / "figures" / "index.json").read_text())
    sections = {e["name"]: e["section"] for e in entries if e["section"].startswith("cost")}
    assert {name for name, section in sections.items() if section == "cost"} == SHOWN
    beside = {name for name, section in sections.items() if section == "cost-details"}
    assert DETAILS | {"memory-context"} <= beside
    assert {name for name in beside if name.startswith("tradeoff-")} == {
        "tradeoff-time-heldout-heldout_next_line-acc",
        "tradeoff-time-heldout-heldout_bits_per_byte-bits_per_byte",
    }
    for name in sections:
        assert "nan" not in words(paper, name) and f'id="figure-{name}"' in text
    assert "roofline" in words(paper, "speed-decode")
    assert text.count("this machine shows no energy counter.") == 1
    assert "| 50k float32" in text and "tg8 @ d248" in text


def test_a_cell_has_one_speed_on_the_whole_page(tmp_path):
    paper = small(tmp_path)

    def loaded(cell):  # one round held many fast repeats, each of the others a slow one
        fast = cell["seconds"][0]
        cell["seconds"], cell["round_repeats"] = [fast] * 6 + [3 * fast, 3 * fast], [6, 1, 1]
        cell["processor_seconds"] = []

    changed_cells(paper, loaded)
    tables = tabled(paper)
    cells = ways.one_reader(tables["cells"]).set_index("model")["tokens_per_second"]
    repeats = ways.one_reader(tables["speeds"]).groupby("model")["tokens_per_second"].median()
    assert dict(repeats) == pytest.approx(dict(3 * cells))
    columns, rows = key_table.key_table(study_tables.own_ladder(tables))
    place = [column["name"] for column in columns].index("Decoding")
    assert {row[0][0]: row[place][0] for row in rows} == {
        model: show.digits(speed) for model, speed in cells.items()
    }


def test_engines_and_precisions_are_series(tmp_path):
    paper = small(tmp_path)
    paper.limits(precision="bfloat16")
    for label, size in TWO.items():
        paper.probe(label, shape_of_size(size), engine="static", precision="bfloat16", faster=3)
    names = ("speed-decode", "memory", "latency-decode", "tradeoff-time")
    drawn(paper, *names)
    for name in names:
        found = words(paper, name)
        assert "static" in found and "bfloat16" in found, name
    # what has room for one way alone shows the first
    tables = tabled(paper)
    (decoding,) = [found for found in headline.findings(tables) if "Decoding" in found.label]
    alone = Paper(tmp_path / "alone", sizes=TWO, budgets=(200_000,)).whole()
    (same,) = [found for found in headline.findings(tabled(alone)) if "Decoding" in found.label]
    assert decoding.figure == same.figure
    assert (
        ways.cell_name(ways.timed(tables["cells"])) == "batch 1, context 256, transformers, float32"
    )


def test_the_largest_batches_are_drawn_against_context(tmp_path):
    paper = cells_only(tmp_path)
    for path in sorted(paper.root.glob("runs/probe/*/record.json")):
        record = json.loads(path.read_text())
        record["result"]["largest_batches"] = [
            {"phase": "decode", "context": context, "batch": batch, "tries": 9}
            | ({"status": "ok", "reason": None} if batch else {"status": "out-of-memory"})
            | {"limited_by": "memory" if batch else None}
            for context, batch in ((64, 400), (256, 100), (4096, None))
        ]
        path.write_text(json.dumps(record))
    entry = drawn(paper, "largest-batch")["largest-batch"]
    assert entry["section"] == "cost-details" and "64" in words(paper, "largest-batch")
    tables = tabled(paper)
    assert list(tables["largest_batches"]["batch"].dropna()) == [400, 100] * 2
    assert set(tables["failures"]["what"]) == {"largest batch, decode, context 4096"}


def test_one_reason_for_a_whole_grid_is_one_failure(tmp_path):
    paper = cells_only(tmp_path)
    said = {"status": "refused", "reason": "no such engine", "seconds": [], "tokens": None}
    changed_cells(paper, lambda found: found.update(said))
    tables = tabled(paper)
    assert list(tables["failures"]["what"]) == ["12 cells"] * 2
    assert drawn(paper) == {} and cost_table.told(tables)["text"] == ""


def test_busy_cells_are_hollow_and_counted(tmp_path):
    paper = cells_only(tmp_path)
    changed_cells(paper, lambda found: found.update(busy=found["phase"] == "decode"))
    tables = tabled(paper)
    assert "while 8 of 24 cells were timed" in " ".join(costtext.words(tables))
    assert "rounds of repeats lie further" not in " ".join(costtext.words(tables))
    tables["cells"].loc[tables["cells"].index[:3], "rounds_differ"] = True
    assert "In 3 of 24 cells the rounds" in " ".join(costtext.words(tables))
    entries = drawn(paper)
    assert "Hollow marks" in entries["speed-decode"]["caption"]
    assert "Hollow marks" not in entries["speed-prefill"]["caption"]
    rows = cost_table.told(tables)["rows"]
    assert sum("busy" in row[1] for row in rows) == 8


def test_what_was_set_apart_stands_in_the_table_of_cells(tmp_path):
    """Sampling, which no phase has; and the interpreter's share, which no peak has."""
    paper = cells_only(tmp_path)
    told = cost_table.told(tabled(paper))
    assert "Sampling" not in told["columns"], "not measured"
    changed_cells(paper, lambda found: found.update(sampling_seconds=[0.002, 0.004, 0.003]))
    tables = tabled(paper)
    told = cost_table.told(tables)
    first = dict(zip(told["columns"], told["rows"][0], strict=True))
    assert (first["Sampling"], first["Baseline"]) == ("3.00 ms", "381 MiB")
    assert first["Peak memory"] == show.binary(tables["memory"]["peak_bytes"].iloc[0])
    assert told["texts"] == 2 and {len(row) for row in told["rows"]} == {len(told["columns"])}


def test_a_remark_on_a_measured_cell_is_said(tmp_path):
    paper = cells_only(tmp_path)
    said = {"reason": "the cache is not its formula’s"}
    changed_cells(paper, lambda found: found.update(said if found["phase"] == "decode" else {}))
    found = costtext.words(tabled(paper))
    assert "Measured with a remark: 8 cells: the cache is not its formula’s." in found


def test_the_table_of_llama_bench(tmp_path):
    paper = Paper(tmp_path, sizes=TWO)
    shape = shape_of_size(50_000)
    paper.probe("50k", shape)
    heads, rule, *lines = cost_table.told(tabled(paper))["text"].splitlines()
    assert [name.strip() for name in heads.strip("|").split("|")] == [
        *("model", "size", "params", "backend", "threads", "test", "t/s")
    ]
    assert len({len(line) for line in (heads, rule, *lines)}) == 1
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    assert [row[5] for row in rows] == ["pp64", "pp256", "tg8 @ d56", "tg8 @ d248"]
    rates = [4e6 / shape.size**0.5 / 64**0.1 / slower for slower in (1.0, 1.02, 1.01, 1.05)]
    assert rows[0][6] == f"{np.mean(rates):.2f} ± {np.std(rates, ddof=1):.2f}"
    count = shape.parameters(VOCAB)["all"]
    assert rows[0][:5] == [
        *("50k float32", f"{4 * count / 2**20:.2f} MiB", f"{count / 1e6:.2f} M"),
        *("CPU, transformers", "2"),
    ]


def test_the_same_tables_give_the_same_bytes_in_another_process(tmp_path):
    paper = small(tmp_path)
    paper.limits(precision="bfloat16")
    for label, size in TWO.items():
        extra = {"joules": 0.1, "load": True}
        paper.probe(label, shape_of_size(size), engine="static", precision="bfloat16", **extra)
    tabled(paper, price_per_hour=1.5)
    runs = str(tmp_path / "tables" / "runs.parquet")
    command = [sys.executable, "-m", "llama_bench", "plot", '{"study": "paper"}']
    subprocess.run(
        [*command, str(tmp_path / "again" / "index.json"), runs],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
    )
    listed = json.loads((tmp_path / "again" / "index.json").read_text())
    names = [e["name"] for e in listed if e["section"].startswith("cost")]
    assert {"tradeoff-energy", "energy", "cold-start"} <= set(names)
    drawn(paper, *names, price_per_hour=1.5)
    for name in names:
        first, again = (tmp_path / folder / f"{name}.svg" for folder in ("figures", "again"))
        assert first.read_bytes() == again.read_bytes(), name
