"""Two real Llamas on the same items, measured and compared: every kind of score has a test.

Tasks of stories, with the metrics of lambada_openai, wikitext and wmt14-fr-en in their order.
"""

import json

import numpy as np
import pytest
import sacrebleu
from sacrebleu.significance import PairedTest
from scipy import stats

from llama_bench.derive.entry import Entry
from llama_bench.derive.judging import paired_sums
from llama_bench.derive.tables import pairs
from llama_bench.measure import evaluate
from llama_bench.records import Record
from llama_bench.specs import EvaluateSpec, Pretrained

ITEMS = 24
SIZES = ("stories260K", "stories3M")
HEAD = """
task: {name}
custom_dataset: !function rows.load
test_split: test
"""
TASKS = {
    "last_word": """
output_type: loglikelihood
doc_to_text: "{{text.split(' ')[:20]|join(' ')}}"
doc_to_target: "{{' '+text.split(' ')[20]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "whole": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "words_alone": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{metric: word_perplexity}]
""",
    "written": """
output_type: generate_until
doc_to_text: "{{text[:80]}}"
doc_to_target: "{{text[80:160]}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 24, do_sample: false}
metric_list: [{metric: bleu}, {metric: ter}, {metric: chrf}]
""",
}
ROWS = """
import datasets, json, pathlib
def load(**_):
    lines = pathlib.Path(__file__).with_name("stories.jsonl").read_text().splitlines()
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
"""


@pytest.fixture(scope="module")
def compared(shared, tmp_path_factory):
    """({model: its record}, {(task, metric): row of pairs})"""
    folder = tmp_path_factory.mktemp("tasks")
    lines = shared("eval", "tinystories_ppl", "stories500.jsonl").read_text().splitlines()[:ITEMS]
    (folder / "stories.jsonl").write_text("\n".join(lines))
    (folder / "rows.py").write_text(ROWS)
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(HEAD.format(name=name) + text)
    spec = EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=tuple(TASKS), include="digest")
    entries = {}
    for name in SIZES:
        out = tmp_path_factory.mktemp(name)
        inputs = [shared("models", name), folder]
        result = evaluate.run(spec, out, inputs, lambda *a: None)
        assert result["failed"] == []
        asked = json.loads(spec.canonical())
        record = Record(
            id=name, verb="evaluate", spec=asked, seconds={}, provenance={}, result=result
        )
        labels = {"model": name, "suite": "stories"}
        entries[name] = Entry(name, "evaluate", str(out / "record.json"), labels, record)
    found = [row for _, row in pairs.rows(list(entries.values()))]
    return entries, {(row["task"], row["metric"]): row for row in found}


def score(entries, name, task, metric):
    rows = entries[name].record.result["scores"]
    return next(r["value"] for r in rows if (r["task"], r["metric"]) == (task, metric))


def items(entries, name, task):
    import pandas

    frame = pandas.read_parquet(entries[name].folder / "items.parquet")
    return frame[frame["task"] == task].sort_values("doc_id")


def test_the_main_metric_of_every_task_is_compared(compared):
    entries, found = compared
    assert set(found) == {
        ("last_word", "acc"), ("last_word", "perplexity"), ("whole", "bits_per_byte"),
        ("words_alone", "word_perplexity"), ("written", "bleu"),
    }  # fmt: skip
    for (task, metric), row in found.items():
        small, large = (score(entries, name, task, metric) for name in SIZES)
        assert row["difference"] == pytest.approx(large - small, rel=1e-9)
        assert row["items"] == ITEMS and row["standard_error"] > 0 and 0 < row["p"] <= 1
    assert found["last_word", "acc"]["test"] == "McNemar"
    assert found["whole", "bits_per_byte"]["told_apart"]


def test_perplexity_is_tested_as_its_log_likelihoods(compared):
    entries, found = compared
    nats = [-items(entries, name, "last_word")["log_likelihood"].to_numpy() for name in SIZES]
    row = found["last_word", "perplexity"]
    # few items: signs are flipped; many would have the t test's p
    known = stats.permutation_test(
        (nats[1] - nats[0],), np.mean, permutation_type="samples", n_resamples=20_000, rng=0
    )
    assert row["test"] == "sign flip" and row["p"] == pytest.approx(known.pvalue, abs=0.02)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(ITEMS, size=ITEMS) for _ in range(4_000)]
    means = [[np.exp(each[d].mean()) for d in drawn] for each in nats]
    spread = np.std(np.subtract(*reversed(means)))
    assert row["standard_error"] == pytest.approx(spread, rel=0.35)  # of the first order


def test_words_and_bytes_weigh_the_same_log_likelihoods(compared):
    entries, found = compared
    for name in SIZES:
        mine = items(entries, name, "whole")
        kept = {each["metric"]: each["sums"] for each in mine["statistics"].iloc[0]}
        text, nats = mine["text"].iloc[0], mine["log_likelihood"].iloc[0]
        assert kept["bits_per_byte"] == pytest.approx([nats, len(text.encode())])
        assert kept["word_perplexity"][1] == len(text.split())
    assert found["words_alone", "word_perplexity"]["p"] == found["whole", "bits_per_byte"]["p"]


def test_bleu_is_tested_as_sacrebleu_does(compared):
    """Its own approximate randomization of the same texts."""
    entries, found = compared
    texts = {name: list(items(entries, name, "written")["text"]) for name in SIZES}
    references = [list(items(entries, SIZES[0], "written")["target"])]
    row = found["written", "bleu"]
    theirs = PairedTest(
        list(texts.items()), {"BLEU": sacrebleu.BLEU()}, references,
        test_type="ar", n_samples=4_000, n_jobs=1,
    )()[1]["BLEU"]  # fmt: skip
    assert theirs[1].score - theirs[0].score == pytest.approx(row["difference"])
    assert row["test"] == "randomization" and row["p"] == pytest.approx(theirs[1].p_value, abs=0.04)
    error = compared_error(texts, references)
    assert row["standard_error"] == pytest.approx(error, rel=0.15)


def compared_error(texts, references) -> float:
    """Of the difference over items drawn again, each draw scored anew from its texts."""
    rng, found = np.random.default_rng(7), []
    for _ in range(300):
        drawn = rng.integers(ITEMS, size=ITEMS)
        some = [[references[0][i] for i in drawn]]
        scores = [sacrebleu.corpus_bleu([texts[n][i] for i in drawn], some).score for n in SIZES]
        found.append(scores[1] - scores[0])
    return float(np.std(found, ddof=1))


def test_equal_texts_are_never_told_apart_and_better_ones_are():
    rng = np.random.default_rng(2)
    lengths = rng.integers(8, 30, size=60)

    def counts(share):  # a hypothesis of as many words as its reference
        right = [rng.binomial(lengths - n, share ** (n + 1)) for n in range(4)]
        total = [lengths - n for n in range(4)]
        return np.stack([lengths, lengths, *right, *total], 1).astype(float)

    one = counts(0.5)
    assert paired_sums.compared("bleu", one, one).p == 1.0
    assert paired_sums.compared("bleu", counts(0.7), one).p < 0.001
    seem = sum(paired_sums.compared("bleu", counts(0.5), counts(0.5)).p < 0.05 for _ in range(20))
    assert seem <= 4
