"""The report says what the runs say, stands alone, and opens in a real browser."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pandas
import pytest
import results_on_paper as results
from study_on_paper import CONFIG, Paper, shape_of_size

from llama_bench.derive import collect, fit, plot, report
from llama_bench.derive.tables import study_tables
from llama_bench.derive.words import headline, making, show, slopes
from llama_bench.fields import UserError

CHROMIUM = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def reported(paper: Paper, law: bool = False, **spec) -> Path:
    """The study's report, made as the workflow makes it."""
    root = paper.root
    runs, index = root / "tables" / "runs.parquet", root / "figures" / "index.json"
    collect.run(paper.spec(), runs, [])
    fits = [root / "fits" / "chinchilla.json"] if law else []
    for path in fits:
        fit.run("chinchilla", path, [runs.with_name("ladder.parquet")])
    plot.run('{"study": "paper"}', index, [runs, *fits])
    page = root / "report.html"
    asked = {"study": "paper", "config": CONFIG, "unfinished": []} | spec
    report.run(json.dumps(asked), page, [runs, index, *fits])
    return page


def found(paper: Paper) -> list[headline.Finding]:
    runs = paper.root / "tables" / "runs.parquet"
    collect.run(paper.spec(), runs, [])
    return headline.findings(study_tables.read(runs))


def test_the_headline_finds_the_slopes_that_were_put_in(tmp_path):
    paper = Paper(tmp_path)
    # straight in log size and log tokens: 0.4 nats per decade of one, 0.9 of the other
    paper.law = lambda n, d: 12 - 0.4 * math.log10(n) - 0.9 * math.log10(d)
    size, tokens, decoding = found(paper.whole())
    assert size.figure == "−0.40" and "Ten times the parameters" in size.label
    assert "at 800k training tokens" in size.label
    fourfold = 0.9 * math.log10(4)
    assert tokens.figure == f"−{fourfold:.2f}" and "Four times the training tokens" in tokens.label
    # decode time was put in as the square root of the size
    assert decoding.figure == f"{show.digits(math.sqrt(10), 2)} ×" and decoding.unit == "slower"


def test_speeds_of_a_busy_machine_are_told_as_such(tmp_path):
    paper = Paper(tmp_path)
    assert "busy" not in found(paper.whole())[-1].sentence
    path = next(
        path
        for path in sorted(tmp_path.rglob("record.json"))
        if json.loads(path.read_text())["verb"] == "probe"
    )
    record = json.loads(path.read_text())
    for cell in record["result"]["cells"]:
        cell["busy"] = True
    path.write_text(json.dumps(record))
    assert "busy with other work" in found(paper)[-1].sentence


def test_the_interval_covers_the_mean_slope_of_a_curved_law(tmp_path):
    paper = Paper(tmp_path, noise=0.004).ladder()
    found(paper)
    ladder = study_tables.read(tmp_path / "tables" / "runs.parquet")["ladder"]
    rows = ladder[ladder["token_budget"] == 800_000]
    fitted = slopes.slope(rows["params"], rows["loss"], rows["token_budget"])
    ends = [paper.law(n, 800_000) for n in (rows["params"].min(), rows["params"].max())]
    truth = (ends[1] - ends[0]) / math.log10(rows["params"].max() / rows["params"].min())
    assert abs(fitted.per_decade - truth) < fitted.half_width < abs(truth)


def test_a_slope_without_a_degree_of_freedom_has_no_interval():
    fitted = slopes.slope([1e5, 1e6], [4.0, 3.5], [0, 0])
    assert fitted.per_decade == pytest.approx(-0.5) and fitted.bounds is None
    assert slopes.slope([1e5, 1e5], [4.0, 3.5], [0, 0]) is None


def test_a_decade_is_spoken_of_only_where_a_decade_was_measured(tmp_path):
    paper = Paper(tmp_path, sizes={"100k": 100_000, "300k": 300_000}).ladder()
    size, _ = found(paper)
    low, high = (shape_of_size(count).size for count in paper.sizes.values())
    assert f"{show.digits(high / low, 2)} times" in size.label or "Three times" in size.label
    assert "Ten times" not in size.label
    assert "cannot be told from these runs" in size.sentence and size.figure == show.NOTHING
    assert "too few runs for an interval" in size.sentence


@pytest.mark.parametrize(("spread", "told"), [(0.15, False), (0.01, True)])
def test_without_an_interval_a_change_is_held_against_seeds(tmp_path, spread, told):
    paper = Paper(tmp_path, sizes={"100k": 100_000, "300k": 300_000}, budgets=(200_000,))
    for label, loss in {"100k": 5.0, "300k": 4.9}.items():
        for seed, off in enumerate((-spread, spread)):
            named = {"of_loss": lambda _, loss=loss + off: loss}
            paper.train(label, shape_of_size(paper.sizes[label]), 200_000, seed, changed=named)
    (size,) = found(paper)
    if told:
        assert "lowered the loss by 2.0 %" in size.sentence and "too few runs" in size.sentence
    else:
        assert "cannot be told from these runs" in size.sentence and size.figure == show.NOTHING
        noise = spread * math.sqrt(2) * math.sqrt((1 / 5**2 + 1 / 4.9**2) / 2)
        assert f"seeds alone differ by {show.percent(noise)}" in size.sentence


def test_losses_of_seeds_have_even_places_and_say_what_follows_them(tmp_path):
    paper = Paper(tmp_path, sizes={"100k": 100_000, "300k": 300_000}, budgets=(200_000,))
    for label, ends in {"100k": (4.85, 5.15), "300k": (4.9, 4.92)}.items():
        for seed, loss in enumerate(ends):
            named = {"of_loss": lambda _, loss=loss: loss}
            paper.train(label, shape_of_size(paper.sizes[label]), 200_000, seed, changed=named)
    text = reported(paper).read_text()
    assert "5.000<small>±0.212</small>" in text and "4.910<small>±0.014</small>" in text
    assert "nats/token, ± between seeds" in text and "with ± their standard deviation" in text
    assert "their standard deviation" not in reported(Paper(tmp_path / "one").ladder()).read_text()


def test_an_effect_within_the_noise_is_said_to_be_unclear(tmp_path):
    paper = Paper(tmp_path, noise=0.05)
    paper.law = lambda n, d: 4.0
    size, _ = found(paper.ladder())
    assert "not clear of zero" in size.sentence


def test_only_pretrained_models_are_compared_by_their_scores(tmp_path):
    paper = Paper(tmp_path)
    paper.pretrained("stories260K", shape_of_size(260_000))
    paper.pretrained("stories3M", shape_of_size(3_000_000))
    first = found(paper)[0]
    assert first.unit == "bits per byte" and first.sentence.startswith("stories3M")
    text = reported(paper).read_text()
    assert "2 models trained elsewhere" in text and 'id="loss"' not in text


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The report of a study that has everything: a law, a failure, a model trained elsewhere."""
    paper = Paper(tmp_path_factory.mktemp("whole"), noise=0.002).whole()
    shape = shape_of_size(3_000_000)
    paper.train("3M", shape, 800_000, status="diverged", reason="the loss is 40 at step 7")
    paper.pretrained("stories3M", shape)
    return reported(paper, law=True)


def test_what_a_whole_report_says(whole):
    text = whole.read_text()
    for shown in (
        "Ten times the parameters lowered the loss by",
        "6 Llamas of",
        "Python’s standard library",
        "chance 0.25",
        f"{shape_of_size(50_000).parameters(2048)['all']:,}",
        "L(N, D) = E + A / N<sup>α</sup> + B / D<sup>β</sup>",
        "the loss is 40 at step 7",
        '<th scope="row">3M <small>diverged</small></th>',
        "the corpus has no identifiers",
        "Paper CPU @ 2 GHz",
        "torch 2.13.0",
        "budgets:",
        "The first 200 of 288 rows",
    ):
        assert shown in text, shown
    assert "A partial report" not in text
    visible = re.sub(r"<(style|svg).*?</\1>", "", text, flags=re.S)
    assert not re.search(r"\b(nan|None|NaT|&lt;NA&gt;)\b", re.sub(r"<pre>.*?</pre>", "", visible))


def test_every_anchor_leads_somewhere_and_ids_are_unique(whole):
    text = whole.read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    anchors = re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', text)
    assert {name for anchor in anchors for name in anchor.split()} <= set(ids)


def test_nothing_outside_is_asked_for(whole):
    text = whole.read_text()
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(re.match(r"#|data:,|tables/", link) for link in links)
    assert "<script" not in text and "@import" not in text


def test_text_of_models_is_shown_and_never_obeyed(tmp_path):
    paper = Paper(tmp_path)
    folder = paper.evaluate("300k", shape_of_size(300_000), 200_000, 0)
    record = json.loads((folder / "record.json").read_text())
    evil = '</pre><script>alert(1)</script>\x00\u202e"&'
    record["result"]["samples"] = [{"prompt": "<i>", "text": evil, "decoding": "greedy", "seed": 0}]
    (folder / "record.json").write_text(json.dumps(record))
    text = reported(paper).read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\x00" not in text and "\u202e" not in text and "<i>" not in text


def test_a_partial_report_says_what_is_missing(tmp_path):
    paper = Paper(tmp_path).ladder()
    labels = {"model": "5M", "seed": 0, "budget": 800_000}
    paper.add("train", "5M-800k-s0", labels, {}, {}, record=False)
    text = reported(paper, unfinished=["results/runs/train/5M-800k-s0/record.json"]).read_text()
    assert "A partial report" in text
    assert "results/runs/train/5M-800k-s0/record.json" in text
    assert "5M <small>missing record</small>" in text
    assert "Runs: 15 of 16 train." in text


def test_what_failed_for_one_reason_is_one_row():
    keys = ["run", "verb", "model", "what", "status", "reason", "log"]
    rows = [("a-1", "evaluate", "a", f"task {n}", "failed", "no data", None) for n in range(16)]
    rows += [("a-1", "evaluate", "a", "other", "failed", "no metric", None)]
    rows += [("b-2", "evaluate", "b", "task 0", "failed", "no data", None)]
    runs = pandas.DataFrame([], columns=["id", "verb", "model", "status", "log"])
    found = report._failures(pandas.DataFrame(rows, columns=keys), runs)
    told = [(row["run"], row["what"], row["reason"]) for row in found]
    assert told == [
        ("a-1", "16 tasks, such as task 0", "no data"),
        ("a-1", "other", "no metric"),
        ("b-2", "task 0", "no data"),
    ]


def test_a_study_of_failures_alone_has_a_report(tmp_path):
    paper = Paper(tmp_path)
    paper.train("300k", shape_of_size(300_000), 200_000, status="out-of-memory", reason="9 GiB")
    text = reported(paper).read_text()
    assert "out-of-memory" in text and "9 GiB" in text
    assert "lowered the loss" not in text
    assert '<p class="headline">No training has a result: 1 out-of-memory. ' in text


def test_whole_numbers_of_the_configuration_are_whole():
    config = {"train": {"budgets": [60000.0], "learning_rate": 1e10, "weight_decay": 0.1}}
    shown = "train:\n  budgets: [60000]\n  learning_rate: 10000000000\n  weight_decay: 0.1\n"
    assert making.configuration(config) == shown


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.476, 0.078, "0.48 ± 0.08"),
        (0.04, 0.2, "0.04 ± 0.20"),  # one digit that is not 0
        (-0.0004, 0.2, "0.0 ± 0.2"),  # but nothing that is none beside the error
        (123.4, 20, "123 ± 20"),
    ],
)
def test_a_number_has_the_places_of_its_error(value, error, shown):
    assert show.plus_minus(value, error) == shown


def test_a_fit_that_did_not_converge_is_called_so(tmp_path):
    paper = Paper(tmp_path, budgets=(200_000,)).ladder()
    runs = tmp_path / "tables" / "runs.parquet"
    text = reported(paper, law=True).read_text()
    status = json.loads((tmp_path / "fits" / "chinchilla.json").read_text())["status"]
    assert status != "converged" and len(pandas.read_parquet(runs.with_name("ladder.parquet"))) == 5
    assert f'<span class="tag bad">{status}</span>' in text
    assert "By this law" not in text


def test_where_the_time_went(tmp_path):
    # 4 runs of 10 s one after another on 2 cores, one thread each: half of the cores idle
    paper = Paper(tmp_path, sizes={"300k": 300_000, "50k": 50_000}, budgets=(200_000, 400_000))
    text = reported(paper.ladder()).read_text()
    assert "held 40.0 s of core time" in text and "15 % of it was start-up" in text
    assert "40.0 s passed on 2 cores; 50 % of cores × wall was held by no run" in text
    assert re.search(r"were 5[78] %", text)  # (40 idle + 4 x 1.5) / 80
    assert "In 15 % of that wall time no run did useful work" in text


def test_wall_time_without_useful_work_is_that_of_no_run_at_all(tmp_path):
    # began, seconds of start-up, in all: useful are 2-10, 9-12, then nothing, then 22-30
    runs = [(0, 2, 10), (6, 3, 6), (20, 2, 10)]
    paper = Paper(tmp_path)
    for place, (began, startup, total) in enumerate(runs):
        path = paper.probe(f"m{place}", shape_of_size(300_000)) / "record.json"
        record = json.loads(path.read_text())
        record["seconds"] = {"startup": startup, "total": total}
        record["provenance"]["began"] = 1.7e9 + began
        path.write_text(json.dumps(record))
    text = reported(paper).read_text()
    assert "30.0 s passed on 2 cores;" in text
    assert "In 40 % of that wall time no run did useful work" in text  # 2 + 8 + 2 of 30

    # a pause is no part of the wall time, and is said to be left out
    record["provenance"]["began"] = 1.7e9 + 1012
    path.write_text(json.dumps(record))
    text = reported(paper).read_text()
    assert "22.0 s passed on 2 cores, without 16 min 40 s in pauses of over 60 s;" in text
    assert "In 18 % of that wall time" in text  # 2 + 2 of 22


def test_wrong_inputs_are_one_message(tmp_path):
    page = reported(Paper(tmp_path).ladder())
    runs, index = tmp_path / "tables" / "runs.parquet", tmp_path / "figures" / "index.json"
    with pytest.raises(UserError, match=r"needs figures/index.json"):
        report.run('{"study": "paper"}', page, [runs])
    (tmp_path / "figures" / "loss-flops.svg").unlink()
    with pytest.raises(UserError, match=r"loss-flops.svg: cannot be read"):
        report.run('{"study": "paper"}', page, [runs, index])
    index.write_text('[{"name": 3}]')
    with pytest.raises(UserError, match="is no index of figures"):
        report.run('{"study": "paper"}', page, [runs, index])


@pytest.fixture
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=list(CHROMIUM))
        yield opened
        opened.close()


def test_it_opens_in_a_real_browser(whole, browser):
    figures = json.loads((whole.parent / "figures" / "index.json").read_text())
    for width in (1280, 390):
        page = browser.new_page(viewport={"width": width, "height": 900})
        trouble, requests = [], []
        page.on("console", lambda message, to=trouble: to.append(message.text))
        page.on("pageerror", lambda error, to=trouble: to.append(str(error)))
        page.on("request", lambda request, to=requests: to.append(request.url))
        page.goto(whole.as_uri())
        drawings = page.locator("figure svg[role=img]")
        shut = page.locator("details:has(figure) > summary")
        for place in range(shut.count()):
            shut.nth(place).click()
        assert drawings.count() == len(figures) > 11
        for place in range(drawings.count()):
            box = drawings.nth(place).bounding_box()
            assert drawings.nth(place).is_visible()
            assert 300 < box["width"] <= width and box["height"] > 150
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.locator("#table-ladder summary").click()
        assert page.locator("#table-ladder tbody tr").first.is_visible()
        assert trouble == []
        assert [url for url in requests if not url.startswith("data:")] == [whole.as_uri()]
        page.close()


def test_without_a_law_one_sentence_says_why(tmp_path):
    paper = Paper(tmp_path, sizes={"300k": 300_000}, budgets=(200_000,))
    text = reported(paper.ladder()).read_text()
    assert "No law: because none could be fitted to the 1 run of 1 size at 1 budget" in text
    text = reported(paper, config=CONFIG | {"fit": {"laws": []}}).read_text()
    assert "No law: because the configuration asks for none" in text


def test_a_ratio_that_the_probes_do_not_determine_is_said_in_words(tmp_path):
    paper = Paper(tmp_path).whole()
    for place, path in enumerate(sorted((tmp_path / "runs" / "probe").glob("*/record.json"))):
        record = json.loads(path.read_text())
        for cell in record["result"]["cells"]:
            cell["seconds"] = [value * 100 ** (place % 2) for value in cell["seconds"]]
        path.write_text(json.dumps(record))
    decoding = found(paper)[-1]
    assert decoding.figure == show.NOTHING and "not determined by these runs" in decoding.interval
    assert "cannot be told" in decoding.sentence and " to " not in decoding.interval


def test_the_corpus_is_called_by_the_names_of_its_files(tmp_path):
    paper = Paper(tmp_path).ladder()
    files = {"corpus": {"source": "files"}}
    paper.add("prepare", "own", {}, results.PREPARE, files)
    own = {"data": {"corpus": ["/somewhere/on/disk/tales.txt", "poems.jsonl"]}}
    text = reported(paper, config=CONFIG | own).read_text()
    assert "of tales.txt and poems.jsonl (" in text
