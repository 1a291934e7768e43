"""Medians, rooflines, energy and money of probed cells, held against arithmetic done by hand."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from cost_on_paper import cells_only, changed_cells, tabled
from results_on_paper import probe
from study_on_paper import VOCAB, Paper, shape_of_size

from llama_bench.derive.tables import repeats
from llama_bench.derive.words import costtext
from llama_bench.shape import Shape


def cell(tables, model, phase, batch, context, **way):
    rows = tables["cells"].query("model == @model and phase == @phase")
    rows = rows[(rows["batch"] == batch) & (rows["context"] == context)]
    for name, value in way.items():
        rows = rows[rows[name] == value]
    return rows.squeeze()


def test_the_interval_of_a_median_is_that_of_every_possible_resample():
    values = np.array([3.1, 1.0, 2.2, 9.0, 1.4])
    medians = sorted(np.median(draw) for draw in itertools.product(values, repeat=len(values)))
    for end, share in zip(repeats.median_interval(values), (0.025, 0.975), strict=True):
        place = int(np.ceil(share * len(medians))) - 1
        assert end == medians[place]


def test_the_interval_of_a_median_covers_the_true_one_as_often_as_it_says():
    draws = np.random.default_rng(1).lognormal(size=(2000, 15))
    ends = [repeats.median_interval(values) for values in draws]
    covered = np.mean([low <= 1.0 <= high for low, high in ends])
    assert 0.93 < covered < 0.99


@pytest.mark.parametrize(
    ("count", "left_out", "level"),
    [(5, 0, 0.9375), (6, 0, 0.96875), (8, 0, 0.9921875), (9, 1, 0.96)],
)
def test_between_ordered_rounds_the_median_lies_as_often_as_binomials_say(count, left_out, level):
    draws = np.random.default_rng(2).lognormal(size=(4000, count))
    ends = [repeats.ordered_interval(list(values)) for values in draws]
    one = sorted(draws[0])
    assert ends[0] == (one[left_out], one[-1 - left_out])
    covered = np.mean([low <= 1.0 <= high for low, high in ends])
    assert abs(covered - level) < 4 * (level * (1 - level) / 4000) ** 0.5 + 0.001


def test_each_round_counts_the_same_in_the_median():
    """Whatever disturbs a round makes it hold fewer repeats in its time."""
    times = [1.0] * 10 + [4.0] * 3 + [5.0] * 2
    found = repeats.summary(times, [10, 3, 2])
    assert (found["median_seconds"], found["repeats"]) == (4.0, 15)
    assert (found["median_low_seconds"], found["median_high_seconds"]) == (1.0, 5.0)


def test_beside_other_programs_the_range_begins_where_nobody_is_waited_for():
    seconds, alone = np.linspace(3.0, 5.0, 41), np.linspace(1.0, 2.0, 41)
    seconds = np.concatenate([seconds[::2], seconds[1::2]])  # rounds that are alike
    low, high = repeats.interval(seconds, [21, 20], alone)
    assert low == alone.min() and high == np.quantile(seconds, 0.975)
    quiet = repeats.interval(seconds, [21, 20])
    assert low < quiet[0] and quiet[1] < high


def test_rounds_that_lie_apart_widen_the_interval():
    """Twenty repeats a round, as a neighbour comes and goes: single ones would be far too sure."""
    draw = np.random.default_rng(3)
    misses = {True: 0, False: 0}
    for _ in range(200):
        slower = draw.lognormal(sigma=0.2, size=6).repeat(20)
        times = list(slower * draw.lognormal(sigma=0.02, size=120))
        for rounds in (True, False):
            low, high = repeats.interval(times, [20] * 6 if rounds else None)
            misses[rounds] += not low <= 1.0 <= high
    assert misses[True] <= 20 < 60 < misses[False]
    # rounds that are alike leave the interval of single repeats as it is
    alike = [1.0, 2.0, 3.0] * 2
    assert repeats.interval(alike, [3, 3]) == repeats.median_interval(alike)


def test_what_outlasts_a_round_is_allowed_for_in_another_probe():
    """A neighbour on the same host comes and goes, each time for about a round of 40 repeats: two
    probes, one after the other. Where nobody comes, the interval is not that of all repeats."""
    draw, held, wide = np.random.default_rng(7), {1.0: 0, 1.3: 0}, 0
    for slower in held:
        for _ in range(200):
            there = np.cumsum(draw.random(96) < 0.2) % 2  # in blocks of five repeats
            times = slower ** there.repeat(5) * np.exp(0.05 * np.abs(draw.normal(size=480)))
            probes = [list(half) for half in np.split(times, 2)]
            medians = [repeats.median(probe, [40] * 6) for probe in probes]
            ends = [repeats.interval(probe, [40] * 6) for probe in probes]
            held[slower] += all(
                low <= other <= high
                for (low, high), other in zip(ends, reversed(medians), strict=True)
            )
            wide += slower == 1 and ends[0][1] >= np.quantile(probes[0], 0.975)
    assert held[1.3] >= 180 and wide <= 20


def test_rounds_differ_only_where_there_are_some_and_they_do():
    same, apart = [1.0, 2.0, 3.0] * 4, [1.0, 1.1, 1.2] * 2 + [2.0, 2.1, 2.2] * 2
    assert repeats.summary(same, [6, 6])["rounds_differ"] is False
    assert repeats.summary(apart, [6, 6])["rounds_differ"] is True
    assert repeats.summary([1.0] * 6, [3, 3])["rounds_differ"] is False  # a coarse clock
    assert repeats.summary(apart)["rounds_differ"] is None


def test_one_repeat_has_a_median_and_no_interval():
    found = repeats.summary([0.5])
    assert (found["median_seconds"], found["p99_seconds"]) == (0.5, 0.5)
    assert found["median_low_seconds"] is None and repeats.summary([]) == {}
    assert repeats.interval([0.5], [1]) == (None, None)
    even = repeats.median_interval([1.0, 2.0])
    assert even == (1.0, 2.0)


def test_a_cell_says_what_its_repeats_say(tmp_path):
    tables = tabled(cells_only(tmp_path))
    speeds = tables["speeds"].query("model == '50k' and phase == 'decode'")
    seconds = speeds[(speeds["batch"] == 4) & (speeds["context"] == 64)]["seconds"]
    found = cell(tables, "50k", "decode", 4, 64)
    assert found["median_seconds"] == np.median(seconds) and found["repeats"] == 4
    assert (
        found["median_processor_seconds"] == speeds.loc[seconds.index, "processor_seconds"].median()
    )
    assert found["p90_seconds"] == pytest.approx(np.quantile(seconds, 0.9))
    assert found["tokens_per_second"] == 32 / np.median(seconds)
    rates = 32 / seconds
    assert found["mean_tokens_per_second"] == pytest.approx(rates.mean())
    assert found["tokens_per_second_deviation"] == pytest.approx(rates.std(ddof=1))
    assert seconds.min() <= found["median_low_seconds"] <= found["median_high_seconds"]


def test_a_busy_device_is_in_the_cells_status_and_no_failure(tmp_path):
    paper = cells_only(tmp_path)
    quiet = cell(tabled(paper), "50k", "decode", 4, 64)
    said = {"busy": True, "status": "ok, busy"}
    changed_cells(paper, lambda found: found.update(said if found["phase"] == "decode" else {}))
    tables = tabled(paper)
    found = cell(tables, "50k", "decode", 4, 64)
    assert found["status"] == "ok, busy" and cell(tables, "50k", "prefill", 4, 64)["status"] == "ok"
    # two threads, each of which had half of the processor time
    speeds = tables["speeds"].query("model == '50k' and phase == 'decode'")
    speeds = speeds[(speeds["batch"] == 4) & (speeds["context"] == 64)]
    alone = speeds["processor_seconds"] / 2
    assert found["median_low_seconds"] == pytest.approx(np.quantile(alone, 0.025))
    assert found["median_low_seconds"] < quiet["median_low_seconds"]
    assert found["median_seconds"] == quiet["median_seconds"]
    assert found["flops"] == quiet["flops"]
    assert set(tables["memory"]["status"]) == {"ok"} and not len(tables["failures"])


def test_attention_of_a_pretrained_model_is_counted_on_the_shape_in_its_record(tmp_path):
    """Heads that are wider together than the model, as in Gemma."""
    paper = cells_only(tmp_path)
    before = cell(tabled(paper), "50k", "prefill", 1, 256)["flops"]
    told = {"layers": 3, "width": 48, "heads": 4, "kv_heads": 2, "head_size": 32, "vocab_size": 9}
    for path in sorted(tmp_path.glob("runs/probe/*/record.json")):
        record = json.loads(path.read_text())
        record["result"]["shape"] = told
        path.write_text(json.dumps(record))
    own = shape_of_size(50_000)
    pairs = 256 * 256 / 2
    more = 4 * (3 * 4 * 32 - own.layers * own.width) * pairs
    assert cell(tabled(paper), "50k", "prefill", 1, 256)["flops"] == before + more


def test_prefill_multiplies_every_weight_and_the_head_once(tmp_path):
    shape = shape_of_size(300_000)
    found = cell(tabled(cells_only(tmp_path)), "300k", "prefill", 4, 64)
    head = VOCAB * shape.width
    layers = shape.layers * (4 * shape.width**2 + 3 * shape.width * shape.ffn_width)
    pairs = 64 * 64 / 2  # of tokens, the causal half
    flops = 4 * (64 * 2 * layers + 2 * head + 4 * shape.layers * shape.width * pairs)
    assert found["flops"] == flops
    assert found["mfu"] == pytest.approx(flops / 1e11 / found["median_seconds"])
    moved = 4 * shape.parameters(VOCAB)["all"] + 256 * shape.kv_bytes_per_token(4)
    assert found["bytes_moved"] == moved
    bound = max(flops / 1e11, moved / 1e10)
    assert found["roofline_seconds"] == pytest.approx(bound)
    assert found["roofline_share"] == pytest.approx(bound / found["median_seconds"])


def test_decode_reads_weights_and_cache_at_every_step(tmp_path):
    shape = shape_of_size(300_000)
    found = cell(tabled(cells_only(tmp_path)), "300k", "decode", 4, 256)
    weights, per_token = 4 * shape.parameters(VOCAB)["all"], shape.kv_bytes_per_token(4)
    depths = range(249, 257)  # eight steps, the last of which ends with 256 cached
    assert found["bytes_moved"] == sum(weights + 4 * depth * per_token for depth in depths)
    assert found["mbu"] == pytest.approx(found["bytes_moved"] / 1e10 / found["median_seconds"])
    assert found["limited_by"] == "memory"


def test_training_costs_what_a_shape_says(tmp_path):
    shape = shape_of_size(50_000)
    found = cell(tabled(cells_only(tmp_path)), "50k", "train", 1, 256)
    assert found["flops"] == 256 * shape.flops_per_token(VOCAB, 256)
    assert np.isnan(found["bytes_moved"]) and np.isnan(found["mbu"])
    assert found["limited_by"] == "arithmetic" and found["roofline_share"] == found["mfu"]


def test_an_embedding_table_apart_from_the_head_is_not_read(tmp_path):
    untied = Shape(layers=2, width=48, heads=3, ffn_width=112, tied_embeddings=False)
    paper = Paper(tmp_path)
    paper.probe("untied", untied)
    found = cell(tabled(paper), "untied", "decode", 1, 64)
    counts = untied.parameters(VOCAB)
    read = 4 * (counts["all"] - VOCAB * 48)
    depth = 64 - 3.5
    assert found["bytes_moved"] == 8 * (read + depth * untied.kv_bytes_per_token(4))
    # no limits of the device: nothing to hold it against
    assert np.isnan(found["mbu"]) and np.isnan(found["roofline_share"])


def test_quantized_weights_stand_beside_an_embedding_table_of_16_bits(tmp_path):
    shape = shape_of_size(50_000)  # tied, until the head is quantized
    paper = Paper(tmp_path)
    paper.probe("50k", shape, precision="int8")
    found = cell(tabled(paper), "50k", "decode", 1, 64)
    read = found["weight_bytes"] - 2 * VOCAB * shape.width
    assert found["bytes_moved"] == 8 * (read + 60.5 * shape.kv_bytes_per_token(2))


def test_a_vendors_figures_stand_beside_the_measured_ones(tmp_path):
    tables = tabled(cells_only(tmp_path, kind="cuda"))
    cells = tables["cells"].dropna(subset=["mfu"])
    assert len(cells) and np.allclose(cells["vendor_mfu"] * 2, cells["mfu"])
    assert "(vendor, dense: 200 GFLOP/s)" in " ".join(costtext.words(tables))


def test_limits_of_other_threads_are_no_denominator(tmp_path):
    paper = cells_only(tmp_path)
    assert not any("no MFU" in text for text in costtext.words(tabled(paper)))
    path = next(tmp_path.glob("runs/limits/*/record.json"))
    record = json.loads(path.read_text())
    record["result"]["device"]["threads"] = 1
    path.write_text(json.dumps(record))
    tables = tabled(paper)
    assert tables["cells"]["mfu"].isna().all()
    (said,) = [text for text in costtext.words(tables) if "no MFU" in text]
    assert said.startswith("24 cells of 2 threads have no MFU and no MBU: the limits")
    assert "with 1 thread." in said


def test_cells_whose_limits_were_not_asked_for_are_not_blamed_on_threads(tmp_path):
    paper = Paper(tmp_path)
    paper.probe("50k", shape_of_size(50_000))
    assert not any("no MFU" in text for text in costtext.words(tabled(paper)))


def test_energy_and_money_are_plain_quotients(tmp_path):
    tables = tabled(cells_only(tmp_path, joules=0.25), price_per_hour=3.6)
    cells = tables["cells"]
    assert cells["joules_per_token"].to_numpy() == pytest.approx(0.25)
    price = cells["price_per_million_tokens"]
    # 3.6 an hour is a thousandth a second
    assert np.allclose(price, 1e-3 * cells["median_seconds"] / cells["tokens"] * 1e6)
    assert not any("Energy" in text for text in costtext.words(tables))


def counted_by_nvml(paper, seconds: float) -> dict:
    """The tables, where decoding's repeats last `seconds` in all and the rest a tenth of that."""
    for path in sorted(paper.root.glob("runs/probe/*/record.json")):
        record = json.loads(path.read_text())
        record["result"]["energy_source"] = "nvml"
        for found in record["result"]["cells"]:
            share = 1 if found["phase"] == "decode" else 0.1
            found["seconds"] = [share * seconds / 4] * 4
        path.write_text(json.dumps(record))
    return tabled(paper)


def test_a_few_steps_of_a_slow_counter_are_no_energy(tmp_path):
    """NVML's is renewed every 0.1 s: of 5 s one step is 2 %."""
    tables = counted_by_nvml(cells_only(tmp_path, kind="cuda", joules=0.25), 5.0)
    cells = tables["cells"].groupby("phase")
    told = {phase: set(rows["joules_per_token"].dropna()) for phase, rows in cells}
    assert told == {"decode": {0.25}, "prefill": set(), "train": set()}
    why = {phase: set(rows["energy_missing"].dropna()) for phase, rows in cells}
    assert why["decode"] == set() and why["train"] == why["prefill"] and len(why["train"]) == 1
    (said,) = [text for text in costtext.words(tables) if "energy" in text]
    assert said.startswith("Of 16 of 24 cells there is no energy: the counter is renewed every")
    assert "less than 5 s" in said and "probe.seconds" in said


def test_where_no_cell_lasts_long_enough_energy_was_not_measured(tmp_path):
    tables = counted_by_nvml(cells_only(tmp_path, kind="cuda", joules=0.25), 4.9)
    assert tables["cells"]["joules_per_token"].isna().all()
    assert any(text.startswith("Energy was not measured: the") for text in costtext.words(tables))


def test_cells_on_paper_have_the_keys_of_measured_ones():
    from llama_bench.measure.probing.cells import row_of

    keys = set(row_of(("prefill", 1, 64), dict))
    for found in probe(shape_of_size(50_000), load=True)["cells"]:
        assert set(found) == keys
