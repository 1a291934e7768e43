"""finetune: the loss is that of the answers, a resumed run equals one that was never stopped."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from training import SHAPE, spec_of
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from llama_bench import records
from llama_bench.measure import finetune, model
from llama_bench.measure.evaluation.encoding import Encoding
from llama_bench.measure.job import carry_out
from llama_bench.measure.training import state as states
from llama_bench.measure.training.objective import IGNORED, Objective
from llama_bench.measure.tuning import answers
from llama_bench.measure.tuning.answers import Example, Part
from llama_bench.measure.tuning.course import TuningState
from llama_bench.measure.tuning.model_objective import ModelObjective
from llama_bench.records import Refusal
from llama_bench.sources import file_digest
from llama_bench.specs import Corpus, ExamplesSpec, FinetuneSpec

KINDS = ("class", "def", "import", "return")
LORA = dict(method="lora", rank=4, alpha=8, targets=("q_proj", "v_proj", "down_proj"))


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> Path:
    """A base of this study: the record of a tiny training."""
    spec = spec_of(prepared, tokens=60_000)
    path = tmp_path_factory.mktemp("train") / spec.id / "record.json"
    carry_out("train", spec.canonical(), path, [prepared])
    return path


def examples_of(prepared: Path, folder: Path, **fields) -> Path:
    """The record of labelled examples: with which word a line of real Python begins."""
    lines = {}
    for name in ("argparse.py", "subprocess.py", "tarfile.py", "typing.py"):
        for line in (Path(os.__file__).parent / name).read_text().splitlines():
            kind, _, rest = line.strip().partition(" ")
            if kind in KINDS and 8 < len(rest) < 60:
                lines[rest] = {"line": rest, "kind": kind}
    rows = folder / "lines.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in lines.values()))
    asked = dict(prompt="{line}\n#", answer=" {kind}", choices=True)
    spec = ExamplesSpec(
        task="finetune_lines",
        data=prepared.parent.name,
        corpus=Corpus(source="files", files=(file_digest(rows),)),
        **{**asked, **dict(items=500, validation=0.15, test=0.25), **fields},
    )
    path = folder / spec.id / "record.json"
    carry_out("examples", spec.canonical(), path, [prepared, rows])
    return path


@pytest.fixture(scope="module")
def labelled(prepared, tmp_path_factory) -> Path:
    return examples_of(prepared, tmp_path_factory.mktemp("examples"))


def asked(prepared: Path, labelled: Path, of: Path | None, **fields) -> FinetuneSpec:
    begun = dict(base=dict(verb=of.parent.parent.name, run=of.parent.name)) if of else {}
    settings = dict(steps=60, validate_every=10, patience=10, batch=8, context=64)
    settings |= dict(learning_rate=3e-3, warmup_steps=5)
    about = dict(data=prepared.parent.name, examples=labelled.parent.name)
    return FinetuneSpec(**{**begun, **about, **settings, **fields})


@pytest.fixture(scope="module")
def tune(prepared, labelled, trained, tmp_path_factory):
    """`tune(**fields)`: the record of a finished fine-tuning of the tiny base; each made once."""
    root = tmp_path_factory.mktemp("runs")
    (root / "train").mkdir()
    os.symlink(trained.parent, root / "train" / trained.parent.name)
    base = root / "train" / trained.parent.name / "record.json"

    def tuned(examples=labelled, base=base, folder=root / "finetune", **fields) -> Path:
        spec = asked(prepared, examples, base, **fields)
        path = folder / spec.id / "record.json"
        inputs = [prepared, examples, *([base] if base else [])]
        carry_out("finetune", spec.canonical(), path, inputs)
        return path

    tuned.base = base
    return tuned


def weights(record: Path) -> bytes:
    return (record.parent / "checkpoint" / "model.safetensors").read_bytes()


def validations(record: Path) -> dict[int, float]:
    rows = csv.DictReader((record.parent / "curve.csv").read_text().splitlines())
    return {int(row["step"]): float(row["validation_loss"]) for row in rows}


def test_questions(labelled: Path) -> list[dict]:
    lines = (labelled.parent / "tasks" / "finetune_lines.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


test_questions.__test__ = False


def loss_by_hand(checkpoint: Path, labelled: Path) -> float:
    """Nats per answer token over the test part, one example at a time, by transformers alone."""
    loaded = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    nats = count = 0
    for row in test_questions(labelled):
        stem = [tokenizer.bos_token_id, *tokenizer(row["context"])["input_ids"]]
        answer = row["choices"][row["label"]]
        whole = [tokenizer.bos_token_id, *tokenizer(row["context"] + answer)["input_ids"]]
        assert whole[: len(stem)] == stem
        with torch.no_grad():
            table = loaded(torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)
        for place in range(len(stem), len(whole)):
            nats -= table[place - 1, whole[place]].item()
        count += len(whole) - len(stem)
    return nats / count


def test_it_learns_and_is_any_tools_model(tune, labelled, trained):
    path = tune()
    record = records.read(path)
    result = record.result
    assert record.status == "ok"
    assert result["test_loss"] < 0.5 * result["before"]["test_loss"]
    ours = loss_by_hand(path.parent / "checkpoint", labelled)
    assert result["test_loss"] == pytest.approx(ours, rel=1e-5)
    base = loss_by_hand(trained.parent / "checkpoint", labelled)
    assert result["before"]["test_loss"] == pytest.approx(base, rel=1e-5)
    curve = validations(path)
    assert curve[0] == pytest.approx(result["before"]["validation_loss"], abs=1e-6)
    assert curve[result["best_step"]] == pytest.approx(result["validation_loss"], abs=1e-6)
    assert result["validation_loss"] == pytest.approx(min(curve.values()), abs=1e-6)
    assert result["origin"] == {"verb": "train", "run": trained.parent.name}
    assert result["ancestors"][1:] == [trained.parent.name, record.id]
    assert result["trained_parameters"] == result["parameters"]["all"]
    assert result["forgetting"]["before"]["loss"] < result["forgetting"]["after"]["loss"]
    assert not list(path.parent.glob("state*"))


def test_counts_are_those_of_the_examples(tune, labelled):
    result, given = records.read(tune()).result, records.read(labelled).result
    assert result["examples"] == given["examples"]
    assert result["left_out"] == {} and result["absent_labels"] == {"train": [], "validation": []}
    assert result["epochs"] == 60 * 8 / given["examples"]["train"]
    gold = Counter(row["choices"][row["label"]] for row in test_questions(labelled))
    train = Counter(pq.read_table(labelled.parent / "train.parquet")["answer"].to_pylist())
    assert result["majority"]["label"] == train.most_common(1)[0][0]
    share = gold[result["majority"]["label"]] / gold.total()
    assert result["majority"]["accuracy"] == pytest.approx(share)


def test_frozen_features_beat_the_commonest_label(tune):
    path = tune()
    result = records.read(path).result
    said = pq.read_table(path.parent / "predictions.parquet").to_pydict()
    right = np.mean(
        [gold == given for gold, given in zip(said["gold"], said["given"], strict=True)]
    )
    assert result["frozen"]["accuracy"] == pytest.approx(right)
    assert result["frozen"]["items"] == result["examples"]["test"] == len(said["gold"])
    assert result["frozen"]["accuracy"] > result["majority"]["accuracy"] + 0.1


class StopsOnce:
    """Progress that asks for a stop, as a scheduler would, once so many steps are done."""

    def __init__(self, after: int):
        self.after = after

    def __call__(self, done, of, note="") -> None:
        if self.after and done >= self.after:
            self.after = 0
            os.kill(os.getpid(), signal.SIGTERM)

    def say(self, text: str) -> None:
        pass


@pytest.mark.parametrize("how", [{}, LORA], ids=["full", "lora"])
def test_a_stopped_run_goes_on_where_it_was(tune, prepared, labelled, tmp_path, how):
    whole = tune(**how)
    spec = asked(prepared, labelled, tune.base, **how)
    inputs, folder = [prepared, labelled, tune.base], tmp_path / spec.id
    folder.mkdir()
    for after in (7, 20):  # between two validations, and where one is due
        with pytest.raises(SystemExit):
            finetune.run(spec, folder, inputs, StopsOnce(after))
    state = states.load_newest(folder, spec.canonical(), TuningState)
    assert 20 < state.step < spec.steps
    result = finetune.run(spec, folder, inputs, StopsOnce(0))
    output = folder / "record.json"
    assert weights(output) == weights(whole)
    assert (folder / "curve.csv").read_bytes() == (whole.parent / "curve.csv").read_bytes()
    wanted = records.read(whole).result
    for key in ("validation_loss", "test_loss", "before", "forgetting", "frozen", "best_step"):
        assert result[key] == wanted[key], key


def test_a_killed_run_goes_on_where_it_was(tune, prepared, labelled, tmp_path):
    whole = tune()
    spec = asked(prepared, labelled, tune.base)
    output = tmp_path / spec.id / "record.json"
    words = [sys.executable, "-m", "llama_bench", "finetune", spec.canonical(), str(output)]
    inputs = [prepared, labelled, tune.base]
    job = subprocess.Popen([*words, *map(str, inputs)], stderr=subprocess.DEVNULL)
    while not (output.parent / states.NEWEST).exists() and job.poll() is None:
        os.sched_yield()
    job.kill()
    job.wait()
    assert not output.exists()
    carry_out("finetune", spec.canonical(), output, inputs)
    assert weights(output) == weights(whole)
    assert records.read(output).result["test_loss"] == records.read(whole).result["test_loss"]


def test_the_best_state_is_kept_and_patience_ends_it(tune, labelled):
    """Eight examples, learnt by heart: validation rises soon."""
    path = tune(fraction=0.02, patience=2, learning_rate=1e-2, steps=400)
    result, curve = records.read(path).result, validations(path)
    assert result["stopped_early"]
    assert result["best_step"] < result["steps"] < 400
    assert [step for step in curve if step > result["best_step"]] == list(curve)[-2:]
    assert result["validation_loss"] == pytest.approx(curve[result["best_step"]], abs=1e-6)
    assert result["examples"]["train"] == math.ceil(
        0.02 * records.read(labelled).result["examples"]["train"]
    )
    assert result["fraction"] == 0.02


def test_low_rank_products_merged_are_those_applied(tune, trained):
    from peft import PeftModel

    path = tune(**LORA)
    result = records.read(path).result
    assert result["test_loss"] < result["before"]["test_loss"]
    heads, kv = SHAPE["width"], SHAPE["width"] // 2
    per_layer = [heads + heads, heads + kv, SHAPE["ffn_width"] + heads]
    assert result["trained_parameters"] == SHAPE["layers"] * LORA["rank"] * sum(per_layer)
    checkpoint = trained.parent / "checkpoint"
    bare = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    applied = PeftModel.from_pretrained(bare, path.parent / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(path.parent / "checkpoint").eval()
    ids = torch.randint(512, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = merged(ids).logits, applied(ids).logits
    assert (ours - theirs).abs().max() < 1e-4
    before, after = (
        load_file(each / "model.safetensors") for each in (checkpoint, path.parent / "checkpoint")
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert all(name.endswith(tuple(f"{t}.weight" for t in LORA["targets"])) for name in moved)
    assert len(moved) == SHAPE["layers"] * len(LORA["targets"])


@pytest.mark.parametrize("target, said", [("c_attn", "no c_attn"), ("lm_head", "lm_head shares")])
def test_targets_that_cannot_be_adapted_are_named(tune, tmp_path, target, said):
    path = tune(folder=tmp_path, **{**LORA, "targets": ("q_proj", target)})
    record = records.read(path)
    assert record.status == "refused"
    assert "lora.targets" in record.reason
    assert said in record.reason


def test_from_zero_begins_with_random_weights(tune, labelled):
    path = tune(base=None, model=SHAPE)
    record = records.read(path)
    result = record.result
    assert result["before"]["test_loss"] == pytest.approx(math.log(512), abs=0.1)
    assert records.read(tune()).result["test_loss"] < result["test_loss"] < math.log(512) - 1
    assert (result["origin"], result["forgetting"]) == (None, None)
    assert result["ancestors"] == [record.id]


def test_products_in_sixteen_bits_learn_alike(tune):
    for how in ({}, LORA):
        wanted, low = (
            records.read(tune(precision=p, **how)).result for p in ("float32", "bfloat16")
        )
        assert low["test_loss"] == pytest.approx(wanted["test_loss"], rel=0.05)
        assert low["test_loss"] != wanted["test_loss"]


def test_written_answers_end_where_writing_stops(prepared, tune, tmp_path):
    """Answers are text of their own, each with the line's end; there are no frozen features."""
    written = examples_of(
        prepared, tmp_path, prompt="{kind}:", answer=" {line}", choices=False, items=200
    )
    result = records.read(tune(examples=written, folder=tmp_path, steps=20)).result
    assert result["test_loss"] < result["before"]["test_loss"]
    assert result["frozen"] is None
    assert set(result["majority"]) == {"label", "accuracy"}
    ends = pq.read_table(written.parent / "train.parquet")["answer"].to_pylist()
    assert all(answer.startswith(" ") and answer.endswith("\n") for answer in ends)
    rows = (written.parent / "tasks" / "finetune_lines.jsonl").read_text().splitlines()
    tokenizer = AutoTokenizer.from_pretrained(prepared.parent / "tokenizer")
    asked_of = [(row["context"], row["target"]) for row in map(json.loads, rows)]
    tokens = sum(
        len(tokenizer(f"{prompt} {target}\n")["input_ids"]) - len(tokenizer(prompt)["input_ids"])
        for prompt, target in asked_of
    )
    assert result["answer_tokens"]["test"] == tokens


def test_written_answers_are_tested_with_the_blanks_that_they_are_trained_with(prepared, tmp_path):
    """Each with its own."""
    words = [f"{first}{n}" for n in range(60) for first in ("ask", "tell")]
    rows = tmp_path / "rows.jsonl"
    lines = [{"q": q, "a": " yes" if n % 3 else "no"} for n, q in enumerate(words)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = Corpus(source="files", files=(file_digest(rows),))
    spec = ExamplesSpec(
        task="finetune_lines", data=prepared.parent.name, corpus=corpus, prompt="{q}",
        answer="{a}", choices=False, items=120, validation=0.2, test=0.4,
    )  # fmt: skip
    record = tmp_path / spec.id / "record.json"
    carry_out("examples", spec.canonical(), record, [prepared, rows])
    tokenizer = AutoTokenizer.from_pretrained(prepared.parent / "tokenizer")
    asked_for = asked(prepared, record, None, model=spec_shape())
    parts, left_out = answers.read(asked_for, record.parent, "finetune_lines", tokenizer)
    answer_of = {line["q"]: line["a"] + "\n" for line in lines}
    assert left_out == {}
    for part in parts.values():
        assert {each.answer for each in part.examples} == {" yes\n", "no\n"}
        for each in part.examples:
            prompt = tokenizer.decode(each.ids, skip_special_tokens=True).removesuffix(each.answer)
            assert each.answer == answer_of[prompt]


@pytest.mark.parametrize("bos", [None, "stock"])
def test_what_is_learned_begins_as_what_is_scored(prepared, labelled, bos):
    """The tokenizer has a BOS that it does not add by itself."""
    tokenizer = AutoTokenizer.from_pretrained(prepared.parent / "tokenizer")
    spec = asked(prepared, labelled, None, model=spec_shape(), bos=bos)
    parts, _ = answers.read(spec, labelled.parent, "finetune_lines", tokenizer)
    rows = test_questions(labelled)
    scored = Encoding(tokenizer, 64, bos).pairs(
        [(row["context"], row["choices"][row["label"]]) for row in rows]
    )
    assert [each.ids for each in parts["test"].examples] == [pair.ids for pair in scored]
    begun = {each.ids[0] == tokenizer.bos_token_id for each in parts["test"].examples}
    assert begun == {bos is None}


@pytest.mark.parametrize("texts", [[], ["import os"]], ids=["none", "short"])
def test_without_a_window_of_unseen_text_forgetting_is_missing(tune, labelled, tmp_path, texts):
    """And says why; the rest is measured."""
    folder = tmp_path / labelled.parent.name
    shutil.copytree(labelled.parent, folder)
    table = pa.table({"name": pa.array(texts, pa.string()), "text": pa.array(texts, pa.string())})
    pq.write_table(table, folder / "unseen.parquet")
    record = records.read(tune(examples=folder / "record.json", folder=tmp_path / "runs", steps=10))
    assert record.status == "ok", record.reason
    assert record.result["forgetting"] is None
    assert "shorter than one window of 64" in record.result["forgetting_reason"]
    assert record.result["test_loss"] < record.result["before"]["test_loss"]


def test_labels_that_a_fraction_lacks_are_named(tune, labelled):
    """And those that the validation part lacks; the test asks for them all the same."""
    rows = pq.read_table(labelled.parent / "train.parquet")["answer"].to_pylist()
    labels = records.read(labelled).result["choices"]
    count = next(n for n in range(1, len(rows)) if 1 < len(set(rows[:n])) < len(labels))
    result = records.read(tune(fraction=count / len(rows), steps=2)).result
    assert result["examples"]["train"] == count
    wanted = [label for label in labels if label not in rows[:count]]
    assert result["absent_labels"] == {"train": wanted, "validation": []}
    assert {row["choices"][row["label"]] for row in test_questions(labelled)} == set(labels)


def test_a_tuned_model_is_tuned_again(tune, labelled):
    first = tune()
    second = tune(base=first, steps=10, learning_rate=1e-3)
    result = records.read(second).result
    assert result["before"]["test_loss"] == records.read(first).result["test_loss"]
    assert result["ancestors"][-2:] == [first.parent.name, second.parent.name]


def test_what_is_longer_than_the_context_is_left_out_and_counted(tune, labelled, tmp_path):
    result = records.read(tune(context=16, steps=10)).result
    given = records.read(labelled).result["examples"]
    lost = {part: given[part] - used for part, used in result["examples"].items()}
    assert result["left_out"] == {part: {"longer than the context": n} for part, n in lost.items()}
    assert all(0 < n < given[part] for part, n in lost.items())
    record = records.read(tune(context=4, folder=tmp_path))
    assert record.status == "refused"
    assert "give the fine-tuning a longer context" in record.reason


def test_a_context_beyond_the_base_is_refused(tune, tmp_path):
    record = records.read(tune(context=65, folder=tmp_path))
    assert record.status == "refused"
    assert "65 tokens are more than the 64" in record.reason


def test_divergence_is_a_result(tune, tmp_path):
    record = records.read(tune(learning_rate=1e4, warmup_steps=0, folder=tmp_path))
    assert record.status == "diverged"
    assert 0 <= record.result["step"] < 60


def test_a_run_that_cannot_fit_in_memory_is_a_result(prepared, labelled, tmp_path):
    shape = dict(layers=1, width=2**18, heads=2, ffn_width=2**20)
    with pytest.raises(Refusal) as caught:
        finetune.run(
            asked(prepared, labelled, None, model=shape), tmp_path, [prepared, labelled], None
        )
    assert caught.value.status == "out-of-memory"


def pretrained(folder: Path, tokenizer: Path, made) -> dict:
    """A spec's base: a model of somebody else's, saved in `folder`."""
    made.save_pretrained(folder)
    for part in tokenizer.iterdir():
        shutil.copyfile(part, folder / part.name)
    return dict(pretrained=dict(digest="d" * 16))


def run_on(folder: Path, spec: FinetuneSpec, prepared, labelled, output: Path) -> records.Record:
    path = output / spec.id / "record.json"
    carry_out("finetune", spec.canonical(), path, [prepared, labelled, folder])
    return records.read(path)


def test_weights_are_kept_as_they_were_stored(prepared, labelled, trained, tmp_path):
    """And what is measured is what is written."""
    low = AutoModelForCausalLM.from_pretrained(trained.parent / "checkpoint", dtype=torch.bfloat16)
    folder = tmp_path / "low"
    base = pretrained(folder, prepared.parent / "tokenizer", low)
    spec = asked(prepared, labelled, None, base=base, steps=20)
    record = run_on(folder, spec, prepared, labelled, tmp_path)
    checkpoint = tmp_path / spec.id / "checkpoint"
    kept = load_file(checkpoint / "model.safetensors")
    assert {weight.dtype for weight in kept.values()} == {torch.bfloat16}
    ours = loss_by_hand(checkpoint, labelled)
    assert record.result["test_loss"] == pytest.approx(ours, rel=1e-4)
    assert record.result["origin"] == {"pretrained": {"digest": "d" * 16}}
    assert record.result["ancestors"] == ["d" * 16, record.id]


@pytest.mark.parametrize("how", [{}, {**LORA, "targets": ("c_attn",)}], ids=["full", "lora"])
def test_another_architecture_is_tuned_too(prepared, labelled, tmp_path, how):
    config = GPT2Config(
        vocab_size=512, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path / "gpt2"
    base = pretrained(folder, prepared.parent / "tokenizer", GPT2LMHeadModel(config))
    spec = asked(prepared, labelled, None, base=base, learning_rate=1e-2, **how)
    record = run_on(folder, spec, prepared, labelled, tmp_path)
    assert record.status == "ok", record.reason
    assert record.result["test_loss"] < record.result["before"]["test_loss"]
    ours = loss_by_hand(tmp_path / spec.id / "checkpoint", labelled)
    assert record.result["test_loss"] == pytest.approx(ours, rel=1e-4)


def test_prompts_go_through_the_chat_template(prepared, labelled, trained, tmp_path):
    folder = tmp_path / "chat"
    shutil.copytree(trained.parent / "checkpoint", folder)
    base = dict(pretrained=dict(digest="c" * 16))
    spec = asked(prepared, labelled, None, base=base, steps=10, chat_template=True)
    record = run_on(folder, spec, prepared, labelled, tmp_path / "without")
    assert record.status == "refused"
    assert "no chat template" in record.reason
    path = folder / "tokenizer_config.json"
    template = "{% for m in messages %}user: {{ m['content'] }}\n{% endfor %}model:"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    chatting = run_on(folder, spec, prepared, labelled, tmp_path)
    plain = spec.model_copy(update={"chat_template": None})
    without = run_on(folder, plain, prepared, labelled, tmp_path)
    assert chatting.status == without.status == "ok"
    assert chatting.result["answer_tokens"] == without.result["answer_tokens"]
    assert chatting.result["flops"] > without.result["flops"]
    assert "chat_template" in (tmp_path / spec.id / "checkpoint/tokenizer_config.json").read_text()


def test_pickled_weights_are_refused(prepared, labelled, trained, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(trained.parent / "checkpoint", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    spec = asked(prepared, labelled, None, base=dict(pretrained=dict(digest="p" * 16)))
    record = run_on(folder, spec, prepared, labelled, tmp_path)
    assert record.status == "refused"
    assert "pickle" in record.reason


def part() -> Part:
    drawn = torch.Generator().manual_seed(0)
    examples = []
    for length, start in ((9, 4), (30, 28), (17, 1), (12, 11)):
        ids = torch.randint(512, (length,), generator=drawn).tolist()
        examples.append(Example(ids, start, ""))
    return Part(examples)


def test_targets_are_the_answers_tokens():
    inputs, targets = part().batch([0, 3])
    assert inputs.shape == targets.shape == (2, 11)
    ids = part().examples[0].ids
    assert inputs[0, :8].tolist() == ids[:-1]
    assert targets[0].tolist() == [*[IGNORED] * 3, *ids[4:], *[IGNORED] * 3]
    assert targets[1].tolist() == [*[IGNORED] * 10, part().examples[3].ids[11]]


@pytest.mark.parametrize("kind", ["own", "transformers"])
def test_gradients_are_those_of_masked_labels(kind):
    """Of transformers' own loss, where labels outside the answers are -100."""
    ours, theirs = (model.build(spec_shape(), 512, 64, 0) for _ in range(2))
    inputs, targets = part().batch(range(4))
    logits = theirs(inputs, use_cache=False).logits
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    wanted.backward()
    made = (
        Objective(ours, torch.float32, masked=True)
        if kind == "own"
        else ModelObjective(ours, torch.float32)
    )
    count = int((targets != IGNORED).sum())
    loss = made(inputs, targets, 1 / count)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    for name, weight in ours.named_parameters():
        gradient = theirs.get_parameter(name).grad
        assert (weight.grad - gradient).norm() < 1e-5 * gradient.norm(), name
    with torch.no_grad():
        each = made(inputs, targets, None)
    assert each.shape == targets.shape
    assert (each[targets == IGNORED] == 0).all()
    assert each.sum().item() / count == pytest.approx(wanted.item(), rel=1e-6)


def spec_shape():
    from llama_bench.shape import Shape

    return Shape(**SHAPE)


if os.environ.get("OMP_NUM_THREADS") != "1":
    pytest.skip("byte-equal runs are promised for one thread", allow_module_level=True)
