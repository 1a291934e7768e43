"""What a fine-tuned model was taught is what its test asks: a real model, taught and then asked."""

import json
import random
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_bench import records
from llama_bench.measure import evaluate
from llama_bench.measure.evaluation.encoding import Encoding
from llama_bench.measure.job import carry_out
from llama_bench.specs import Corpus, EvaluateSpec, ExamplesSpec, FinetuneSpec, Pretrained

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
NAMES = ("Tim", "Lily", "Tom", "Mia", "Ben", "Anna", "Max", "Sue", "Sam", "Amy")
WINDOW = 512  # of the model


def silent(done, of, note=""):
    assert 0 <= done <= of


class Taught:
    """A model that was fine-tuned on rows: the record of that, and what its own test gives."""

    def __init__(self, model, prepared, folder, rows, asked, **settings):
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        spec = ExamplesSpec(
            task="finetune_taught", data=prepared.parent.name, **asked,
            corpus=Corpus(source="files", files=("0" * 16,)), items=len(rows), validation=0.15,
            test=0.2,
        )  # fmt: skip
        self.examples = folder / spec.id / "record.json"
        carry_out("examples", spec.canonical(), self.examples, [prepared, path])
        tuned = FinetuneSpec(
            base=dict(pretrained=dict(digest="d" * 16)), data=prepared.parent.name,
            examples=spec.id, batch=8, learning_rate=2e-3, patience=9, warmup_steps=5, **settings,
        )  # fmt: skip
        self.finetune = folder / tuned.id / "record.json"
        inputs = [prepared, self.examples, model]
        carry_out("finetune", tuned.canonical(), self.finetune, inputs)
        asks = EvaluateSpec(
            pretrained=Pretrained(digest="0"), tasks=("finetune_taught",), examples=(spec.id,)
        )
        self.out = folder / "out"
        self.out.mkdir()
        checkpoint = self.finetune.parent / "checkpoint"
        self.scores = evaluate.run(asks, self.out, [checkpoint, self.examples], silent)

    @property
    def tuned(self):
        return records.read(self.finetune).result

    def score(self, metric):
        return next(row for row in self.scores["scores"] if row["metric"] == metric)

    @property
    def items(self):
        return pq.read_table(self.out / "items.parquet").to_pylist()


@pytest.fixture
def story(shared, tmp_path):
    """A real model of 512 tokens that writes short stories."""
    model = tmp_path / "model"
    shutil.copytree(shared("models", "stories260K"), model, copy_function=shutil.copyfile)
    return model


def test_a_label_that_begins_another_can_be_given(story, prepared, tmp_path):
    """Numbers up to eleven: " 1" begins " 10" and " 11", and can never be less likely than they."""
    rows = [
        {"text": f"{name} had {word} {thing}.", "count": number}
        for number, word in enumerate(NUMBERS, 1)
        for name in NAMES
        for thing in ("cats", "cars", "toys")
    ]
    asked = {"prompt": "{text} How many?", "answer": " {count}", "choices": True}
    settings = {"steps": 120, "validate_every": 40, "context": 64}
    taught = Taught(story, prepared, tmp_path, rows, asked, **settings)
    result = taught.tuned
    assert result["test_loss"] < 0.1
    assert taught.score("acc")["value"] == 1.0
    labels = {f" {number}" for number in range(1, len(NUMBERS) + 1)}
    answers = taught.scores["answers"]
    assert {row["gold_text"] for row in answers} == {row["given_text"] for row in answers} == labels
    said = records.read(taught.examples).result
    assert set(said["choices"]) == set(said["label_counts"]["test"]) == labels
    assert result["majority"]["label"] in labels and result["frozen"]["accuracy"] > 0.2
    assert result["absent_labels"] == {"train": [], "validation": []}
    guessed = pq.read_table(taught.finetune.parent / "predictions.parquet").to_pydict()
    assert set(guessed["gold"]) == labels >= set(guessed["given"])


def test_a_prompt_that_was_trained_on_whole_is_asked_whole(story, prepared, tmp_path):
    """Though a longest answer of as many tokens as it has bytes would leave no room for it."""
    words = random.Random(0)
    rows = [
        {"text": f"{name} saw {words.sample(NAMES, 3)}. " + "It was a big day. " * 55, "n": n}
        for n, name in enumerate(NAMES * 12)
    ]
    asked = {"prompt": "{text}", "answer": " " + "They all played in the park. " * 6 + "{n}"}
    asked |= {"choices": False}
    settings = {"steps": 2, "validate_every": 2, "context": WINDOW}
    taught = Taught(story, prepared, tmp_path, rows, asked, **settings)
    assert taught.tuned["left_out"] == {}
    checkpoint = taught.finetune.parent / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for item in taught.items[:3]:
        ids = Encoding(tokenizer, WINDOW).encode(item["prompt"])
        assert len(ids) > WINDOW - len(asked["answer"]), "beside so many tokens it does not fit"
        new = WINDOW - len(ids)
        with torch.no_grad():
            out = model.generate(torch.tensor([ids]), max_new_tokens=new, do_sample=False)[0]
        wanted = tokenizer.decode(out, skip_special_tokens=True).removeprefix(item["prompt"])
        assert item["text"] == wanted.split("\n")[0].strip() != ""
