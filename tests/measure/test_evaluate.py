"""Evaluation: scores are the model's own, whatever the batch, the tokenizer or the neighbours."""

import json
import math
import random
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_bench import records
from llama_bench.measure import evaluate, generation, model, scores, tasks
from llama_bench.measure.lm import CausalLM, packed
from llama_bench.records import Record, Refusal
from llama_bench.shape import Shape
from llama_bench.specs import EvaluateSpec, Pretrained, TasksSpec
from llama_bench.study import HELD_OUT_TASKS

SHAPE = Shape(layers=2, width=32, heads=4, kv_heads=2)
CONTEXT = 128


class Silent:
    def __call__(self, done, of, note=""):
        assert 0 <= done <= of

    def say(self, text):
        pass


def checkpoint(folder, prepared, seed=0, spread=4.0):
    """A tiny Llama with its tokenizer; wider weights than usual, so that answers differ."""
    built = model.build(SHAPE, 512, CONTEXT, seed)
    with torch.no_grad():
        for weight in built.parameters():
            if weight.dim() == 2:
                weight.mul_(spread)
    shutil.copytree(prepared.parent / "tokenizer", folder)
    model.save(built, folder)
    return folder


@pytest.fixture(scope="module")
def local(prepared, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", prepared)


def adapter(folder):
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return CausalLM(loaded, AutoTokenizer.from_pretrained(folder, local_files_only=True))


@pytest.fixture(scope="module")
def lm(local):
    return adapter(local)


def ask(kind, *arguments, task="t", docs=None):
    docs = docs or range(len(arguments))
    return [
        Instance(kind, {}, args, index, metadata=(task, doc, 1))
        for index, (args, doc) in enumerate(zip(arguments, docs, strict=True))
    ]


def by_hand(lm, ids, start):
    """Log-likelihood and greediness of ids[start:] from one unpadded pass."""
    with torch.no_grad():
        table = torch.log_softmax(lm.model(torch.tensor([ids[:-1]])).logits[0].double(), dim=-1)
    wanted = torch.tensor(ids[start:])
    rows = table[start - 1 :]
    return (
        rows.gather(1, wanted[:, None]).sum().item(),
        bool((rows.argmax(-1) == wanted).all()),
    )


PAIRS = [
    ("def main(", "self):"),
    ("def main(", "args=None, *, verbose=False):"),
    ("def main(", ")"),
    ("import os\nimport ", "sys"),
    ("", "class Reader:\n    pass\n"),
    ("for line in lines:\n    print(", "line)\n"),
]


def test_likelihoods_do_not_depend_on_what_else_is_asked(lm):
    together = lm.loglikelihood(ask("loglikelihood", *PAIRS, docs=[0, 0, 0, 1, 2, 3]))
    for pair, answer in zip(PAIRS, together, strict=True):
        (alone,) = lm.loglikelihood(ask("loglikelihood", pair))
        ids, start = lm._pair(*pair)
        total, greedy = by_hand(lm, ids, start)
        assert answer[0] == pytest.approx(total, abs=1e-3)
        assert alone[0] == pytest.approx(total, abs=1e-3)
        assert answer[1] == alone[1] == greedy


def test_choices_share_their_context():
    context = list(range(50))
    question = [(n, [*context, *tail], 50) for n, tail in enumerate(([7, 8, 9], [7, 5], [1]))]
    (pack,) = packed(question)
    assert len(pack.ids) == 50 + 2 + 1 + 0
    assert [foretold for _, _, foretold in pack.scored] == [[7, 8, 9], [7, 5], [1]]
    apart = packed([(0, [1, 2, 3, 4], 1), (1, [1, 9, 9, 9], 1)])
    assert [pack.ids for pack in apart] == [[1, 2, 3], [1, 9, 9]]


def test_greedy_answer_is_told_from_another(lm):
    ids = lm.encode("import ")
    with torch.no_grad():
        best = lm.model(torch.tensor([ids])).logits[0, -1].argsort(descending=True)
    for rank, greedy in ((0, True), (1, False)):
        whole = [*ids, best[rank].item()]
        assert by_hand(lm, whole, len(ids))[1] is greedy
        packs = packed([(0, whole, len(ids))])
        assert [answer[2] for answer in lm._score(packs)] == [greedy]


def test_our_contexts_begin_with_one_bos(lm):
    bos = lm.tokenizer.bos_token_id
    for text in ("", "import os", "<|bos|>import os"):
        ids = lm.encode(text)
        assert ids[0] == bos and ids.count(bos) == 1


def test_agrees_with_lm_evals_own_adapter_on_a_tokenizer_that_adds_bos(shared):
    folder = shared("models", "stories260K")
    ours = adapter(folder)
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=4)
    stem = "Once upon a time, there was a little girl named"
    pairs = [(stem, " Lily."), (stem, " Tom."), ("The dog was very", " happy"), ("", "One day")]
    requests = ask("loglikelihood", *pairs, docs=[0, 0, 1, 2])
    for mine, other in zip(
        ours.loglikelihood(requests), theirs.loglikelihood(requests), strict=True
    ):
        assert mine == (pytest.approx(other[0], abs=1e-3), other[1])
    assert ours.encode(stem).count(ours.tokenizer.bos_token_id) == 1
    prompts = ask("generate_until", (stem, {"until": ["."], "max_gen_toks": 20}))
    (text,), (other,) = ours.generate_until(prompts), theirs.generate_until(prompts)
    assert text.lstrip() == other == "Lily"  # theirs drops the blank, see below


def test_rolling_likelihood_charges_no_bos(shared):
    ours = adapter(shared("models", "stories260K"))
    text = "Once upon a time, there was a little girl named Lily. " * 40
    ids = ours.encode(text)
    assert len(ids) > ours.window + 1
    (rolling,) = ours.loglikelihood_rolling(ask("loglikelihood_rolling", (text,)))
    first = by_hand(ours, ids[: ours.window + 1], 1)[0]
    rest = ids[ours.window + 1 :]
    last = by_hand(ours, ids[-ours.window - 1 :], ours.window + 1 - len(rest))[0]
    assert len(ids) - 1 <= 2 * ours.window
    assert rolling == pytest.approx(first + last, rel=1e-5)


def test_a_token_across_the_border_is_scored_whole(lm):
    """Where "impo" + "rt" is one token, that token is the answer, and the answer is not empty."""
    whole, context = lm.encode("import"), lm.encode("impo")
    assert whole[: len(context)] != context, "the tokenizer should have 'import' as one token"
    ((total, _),) = lm.loglikelihood(ask("loglikelihood", ("impo", "rt")))
    assert total == pytest.approx(by_hand(lm, whole, 1)[0], abs=1e-3)
    assert not lm.unscored


def test_one_request_that_cannot_be_scored_leaves_the_others(local):
    lm = adapter(local)
    endless = " value" * 400
    answers = lm.loglikelihood(
        ask("loglikelihood", ("import os", ""), ("import ", "sys"), ("import ", endless), task="x")
    )
    assert answers[0] == answers[2] == (-math.inf, False)
    assert answers[1] == adapter(local).loglikelihood(ask("loglikelihood", ("import ", "sys")))[0]
    assert lm.unscored == {"x": 2}


def test_a_long_context_loses_its_beginning(local):
    lm = adapter(local)
    context = "".join(f"line {n}\n" for n in range(200))
    ids, start = lm._pair(context, "end")
    ((total, _),) = lm.loglikelihood(ask("loglikelihood", (context, "end")))
    kept = ids[-CONTEXT - 1 :]
    assert total == pytest.approx(by_hand(lm, kept, len(kept) - (len(ids) - start))[0], abs=1e-3)
    assert lm.truncated == {"t": 1}


def test_generated_text_is_the_greedy_one_whatever_the_batch(lm):
    prompts = ["import ", "for line in lines:\n    print(", "def", "class Reader(object"]
    settings = {"until": ["\n"], "do_sample": False, "max_gen_toks": 12}
    together = lm.generate_until(ask("generate_until", *((p, settings) for p in prompts)))
    for prompt, text in zip(prompts, together, strict=True):
        ids = lm.encode(prompt)
        given = len(ids)
        for _ in range(12):
            with torch.no_grad():
                ids.append(lm.model(torch.tensor([ids])).logits[0, -1].argmax().item())
            if ids[-1] == lm.tokenizer.eos_token_id:
                break
        expected = lm.tokenizer.decode(ids, skip_special_tokens=True)
        assert text == expected[len(prompt) :].split("\n")[0], (prompt, ids[given:])


def test_stop_string_ends_the_text_and_the_work(lm):
    free = lm.generate_until(ask("generate_until", ("import ", {"until": [], "max_gen_toks": 8})))
    stop = free[0][2:4]
    settings = {"until": [stop], "max_gen_toks": 8}
    (text,) = lm.generate_until(ask("generate_until", ("import ", settings)))
    assert text == free[0].split(stop)[0]


def test_blank_before_a_generated_word_is_kept(shared):
    """SentencePiece's decoder drops the first blank of what it is given."""
    lm = adapter(shared("models", "stories260K"))
    settings = {"until": ["."], "max_gen_toks": 12}
    (text,) = lm.generate_until(ask("generate_until", ("Once upon", settings)))
    assert text.startswith(" a time")


def test_samples_are_the_same_again_and_differ_by_seed(lm):
    once = generation.samples(lm, ("import ", "def main("), 10, seed=3)
    assert once == generation.samples(lm, ("import ", "def main("), 10, seed=3)
    assert once != generation.samples(lm, ("import ", "def main("), 10, seed=4)
    assert [row["decoding"] for row in once] == ["greedy"] * 2 + ["temperature 0.8"] * 2
    assert all(row["text"] for row in once)


def record(path, verb, result=None):
    found = Record(
        id=path.parent.name, verb=verb, spec={}, seconds={}, provenance={}, result=result or {}
    )
    found.write(path)
    return path


@pytest.fixture(scope="module")
def suite(prepared, tmp_path_factory):
    """A tasks run on the small corpus."""
    folder = tmp_path_factory.mktemp("suite")
    spec = TasksSpec(data=prepared.parent.name, items=30)
    return record(folder / "record.json", "tasks", tasks.run(spec, folder, [prepared], Silent()))


def spec_of(**given):
    return EvaluateSpec(**{"train": "tiny-12345678", "tasks": HELD_OUT_TASKS} | given)


@pytest.fixture(scope="module")
def evaluated(local, suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    spec = spec_of(held_out="suite", prompts=("import ",), prompt_tokens=8)
    result = evaluate.run(spec, folder, [local.parent / "record.json", suite], Silent())
    return folder, result


def test_every_task_is_scored_beside_its_chance(evaluated, suite):
    _, result = evaluated
    about = records.read(suite).result["tasks"]
    assert result["failed"] == [] and len(about) == 5
    rows = {(row["task"], row["metric"]): row for row in result["scores"]}
    assert {task for task, _ in rows} == set(HELD_OUT_TASKS)
    for name, task in about.items():
        row = rows[name, task["metric"]]
        assert row["chance"] == task["chance"] and row["items"] == task["items"]
        assert row["higher_is_better"] is task["higher_is_better"]
        assert row["unscored"] == row["truncated"] == row["shots"] == 0
        assert row["version"] == "1" and row["filter"] == "none"
        assert row["standard_error"] is not None
    assert ("heldout_next_line", "acc_norm") in rows
    assert rows["heldout_bits_per_byte", "bits_per_byte"]["value"] > 1


def test_scores_follow_from_the_items(evaluated):
    folder, result = evaluated
    items = pq.read_table(folder / "items.parquet").to_pylist()
    for row in result["scores"]:
        mine = [i for i in items if i["task"] == row["task"] and i["choice"] == 0]
        assert len(mine) == row["items"]
        if row["metric"] == "bits_per_byte":
            nats = -sum(item["log_likelihood"] for item in mine)
            value = nats / math.log(2) / sum(item["bytes"] for item in mine)
        elif row["metric"] == "acc_norm":
            continue
        else:
            value = sum(item["verdict"] for item in mine) / len(mine)
        assert row["value"] == pytest.approx(value, rel=1e-9)
    choices = [item for item in items if item["task"] == "heldout_next_line"]
    for doc in {item["doc_id"] for item in choices}:
        four = [item for item in choices if item["doc_id"] == doc]
        best = max(four, key=lambda item: item["log_likelihood"])
        assert four[0]["verdict"] == float(str(best["choice"]) == best["target"])


def test_lm_evals_own_result_lies_beside(evaluated):
    folder, result = evaluated
    own = json.loads((folder / "lm_eval.json").read_text())
    assert "samples" not in own
    for row in result["scores"]:
        assert own["results"][row["task"]][f"{row['metric']},{row['filter']}"] == row["value"]


def test_the_model_says_what_was_loaded(evaluated, local):
    _, result = evaluated
    assert result["parameters"] == SHAPE.parameters(512)
    assert result["model"] == {
        "path": str(local), "repo": None, "commit": None, "dtype": "float32", "context": CONTEXT,
    }  # fmt: skip
    assert [row["prompt"] for row in result["samples"]] == ["import", "import"]


def test_tasks_left_out_are_listed_with_their_reason(local, tmp_path):
    folder = tmp_path / "suite"
    result = {"tasks": {}, "left_out": {"heldout_valid_code": "no Python in the corpus"}}
    suite = record(folder / "record.json", "tasks", result)
    (folder / "tasks").mkdir()
    spec = spec_of(tasks=("heldout_valid_code",), held_out="suite")
    found = evaluate.run(spec, tmp_path, [local.parent / "record.json", suite], Silent())
    reason = "no Python in the corpus"
    assert found["failed"] == [{"task": "heldout_valid_code", "reason": reason}]
    assert found["scores"] == []


COLOURS = """
task: {name}
custom_dataset: !function rows.load
test_split: test
output_type: multiple_choice
doc_to_text: {text}
doc_to_choice: choices
doc_to_target: label
target_delimiter: ""
"""
ROWS = '''
import datasets
def load(**_):
    row = {"question": "the sky is", "choices": [" blue", " red", " sour"], "label": 0}
    odd = {"question": "grass is", "choices": [" green", "", " loud"], "label": 0}
    return {"test": datasets.Dataset.from_list([row, odd, row])}
'''


@pytest.fixture
def include(tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "rows.py").write_text(ROWS)
    (folder / "colours.yaml").write_text(COLOURS.format(name="colours", text="question"))
    (folder / "broken.yaml").write_text(COLOURS.format(name="broken", text='"{{ 1 / 0 }}"'))
    return folder


def test_a_task_that_fails_loses_no_other(local, include, tmp_path):
    spec = spec_of(tasks=("broken", "colours"), include="digest")
    found = evaluate.run(spec, tmp_path, [local.parent / "record.json", include], Silent())
    assert [row["task"] for row in found["failed"]] == ["broken"]
    assert "ZeroDivisionError" in found["failed"][0]["reason"]
    row = next(row for row in found["scores"] if row["metric"] == "acc")
    assert row["task"] == "colours" and row["items"] == 3
    assert row["chance"] == pytest.approx(1 / 3)  # not said by the task: one of its choices
    assert row["unscored"] == 1  # the empty choice
    items = pq.read_table(tmp_path / "items.parquet").to_pylist()
    assert [item["log_likelihood"] for item in items if item["text"] == ""] == [None]


def test_limit_and_shots_are_kept_to(local, include, tmp_path):
    spec = spec_of(tasks=("colours",), include="digest", limit=2, shots=1)
    found = evaluate.run(spec, tmp_path, [local.parent / "record.json", include], Silent())
    assert {(row["items"], row["shots"]) for row in found["scores"]} == {(2, 1)}


def damaged(local, folder, change):
    shutil.copytree(local, folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        change(loaded)
    model.save(loaded, folder)
    return folder


def refusal(folder, suite, tmp_path):
    spec = EvaluateSpec(
        pretrained=Pretrained(digest="0"), tasks=("heldout_next_line",), held_out="suite"
    )
    with pytest.raises(Refusal) as caught:
        evaluate.run(spec, tmp_path, [folder, suite], Silent())
    assert "\n" not in caught.value.reason
    return caught.value


def test_a_model_of_nan_has_no_score(local, suite, tmp_path):
    folder = damaged(local, tmp_path / "nan", lambda m: m.lm_head.weight[3].fill_(math.nan))
    assert refusal(folder, suite, tmp_path).status == "diverged"


def test_finite_weights_that_give_nan_have_no_score(local, suite, tmp_path):
    folder = damaged(local, tmp_path / "big", lambda m: m.model.norm.weight.fill_(3e38))
    found = refusal(folder, suite, tmp_path)
    assert found.status == "diverged" and "not finite" in found.reason


def test_a_model_that_cannot_be_loaded_is_refused(local, suite, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(local, bare)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    found = refusal(bare, suite, tmp_path)
    assert found.status == "refused" and "no tokenizer" in found.reason

    empty = tmp_path / "empty"
    shutil.copytree(local, empty, ignore=shutil.ignore_patterns("*.safetensors"))
    assert "weights" in refusal(empty, suite, tmp_path).reason

    strange = tmp_path / "strange"
    shutil.copytree(local, strange)
    config = json.loads((strange / "config.json").read_text()) | {"model_type": "walrus"}
    (strange / "config.json").write_text(json.dumps(config))
    assert "walrus" in refusal(strange, suite, tmp_path).reason


def test_a_tokenizer_larger_than_its_model_is_refused(local, suite, tmp_path):
    folder = tmp_path / "small"
    shutil.copytree(local, folder)
    model.save(model.build(SHAPE, 300, CONTEXT, 0), folder)
    assert "512 ids, the model 300" in refusal(folder, suite, tmp_path).reason


STORIES = """
task: stories
custom_dataset: !function rows.load
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""


def test_the_larger_real_llama_reads_stories_better(shared, tmp_path):
    lines = shared("eval", "tinystories_ppl", "stories500.jsonl").read_text().splitlines()
    folder = tmp_path / "stories"
    folder.mkdir()
    (folder / "stories.yaml").write_text(STORIES)
    (folder / "stories.json").write_text(f"[{','.join(lines[:12])}]")
    (folder / "rows.py").write_text(
        "import datasets, json, pathlib\n"
        "def load(**_):\n"
        "    text = pathlib.Path(__file__).with_name('stories.json').read_text()\n"
        "    return {'test': datasets.Dataset.from_list(json.loads(text))}\n"
    )
    values = {}
    for name in ("stories260K", "stories3M"):
        spec = EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=("stories",), include="digest")
        out = tmp_path / name
        out.mkdir()
        found = evaluate.run(spec, out, [shared("models", name), folder], Silent())
        (row,) = found["scores"]
        assert row["items"] == 12 and 0 < row["standard_error"] < 0.1
        values[name] = row["value"]
    assert 0.3 < values["stories3M"] < values["stories260K"] - 0.05 < 1.0


def test_ratio_error_is_what_resampling_says():
    rng = random.Random(0)
    weights = [rng.uniform(50, 500) for _ in range(200)]
    amounts = [weight * rng.gauss(2, 0.4) for weight in weights]
    ratios = []
    for _ in range(2000):
        drawn = rng.choices(range(200), k=200)
        ratios.append(sum(amounts[i] for i in drawn) / sum(weights[i] for i in drawn))
    mean = sum(ratios) / len(ratios)
    resampled = math.sqrt(sum((ratio - mean) ** 2 for ratio in ratios) / len(ratios))
    assert scores.ratio_error(amounts, weights) == pytest.approx(resampled, rel=0.1)


@pytest.mark.parametrize(
    "metric, value, values, expected",
    [
        ("acc", 0.5, [1, 0, 1, 0], math.sqrt(0.25 / 3)),
        ("acc", 0.5, [1], None),
        ("bits_per_byte", 1.0, [(-2.0, 2), (-4.0, 4)], 0.0),
        ("perplexity", math.exp(1.5), [-1.0, -2.0], math.exp(1.5) * 0.5),
        ("f1", 0.7, [(0, 1), (1, 1)], None),
        ("mcc", 0.1, [1, 0, 1, 0], None),
    ],
)
def test_standard_errors_by_metric(metric, value, values, expected):
    found = scores.standard_error(metric, value, values)
    assert found == (expected if expected is None else pytest.approx(expected))

