"""The same numbers as the lm_eval command: the same model, tasks, precision, batch and BOS policy.

The command runs in a process of its own, as a user would start it; its logged samples are compared
with ours item by item.
"""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from tiny_llama import checkpoint
from transformers import AutoTokenizer

from llama_bench.measure import evaluate, examples, tasks
from llama_bench.measure.evaluation.encoding import Encoding
from llama_bench.records import Record
from llama_bench.specs import Corpus, EvaluateSpec, ExamplesSpec, Pretrained, TasksSpec

ITEMS = 24


def silent(done, of, note=""):
    assert 0 <= done <= of


def by_command(model, folder, names, out):
    """What lm_eval logs of every item: {(task, doc_id): sample}."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args"]
    command += [f"pretrained={model},dtype=float32", "--include_path", str(folder)]
    command += ["--tasks", ",".join(names), "--log_samples", "--output_path", str(out)]
    command += ["--batch_size", "8", "--device", "cpu", "--seed", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for path in out.rglob("samples_*.jsonl"):
        task = path.name.removeprefix("samples_").rpartition("_")[0]
        for line in path.read_text().splitlines():
            sample = json.loads(line)
            found[task, sample["doc_id"]] = sample
    return found


def by_us(model, inputs, names, out, **given):
    out.mkdir()
    spec = EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=names, bos="stock", **given)
    result = evaluate.run(spec, out, [model, *inputs], silent)
    assert result["failed"] == [] and {row["task"] for row in result["scores"]} == set(names)
    found = {}
    for item in pq.read_table(out / "items.parquet").to_pylist():
        found.setdefault((item["task"], item["doc_id"]), []).append(item)
    return result, found


def confused(model, ours):
    """Items that lm_eval's own model mixes up: it looks requests up by the tokens of the whole
    but the last, so two that are split in different places get one answer (Collator, 0.4.13)."""
    encoding, splits = Encoding(AutoTokenizer.from_pretrained(model), 10_000, "stock"), {}
    for key, items in ours.items():
        for item in items:
            if item["is_greedy"] is not None:
                (pair,) = encoding.pairs([(item["prompt"], item["text"])])
                splits.setdefault(tuple(pair.ids[:-1]), set()).add((key, pair.start))
    several = [s for s in splits.values() if len({start for _, start in s}) > 1]
    return {key for found in several for key, _ in found}


def assert_equal(model, theirs, ours):
    """Verdicts of every item the same, log-likelihoods within 1e-4, generated text the same."""
    assert set(theirs) == set(ours)
    kinds, mixed_up = set(), confused(model, ours)
    assert len(mixed_up) < 0.05 * len(ours)
    for key, sample in theirs.items():
        if key in mixed_up:
            continue
        for item, answer in zip(ours[key], sample["filtered_resps"], strict=True):
            if item["log_likelihood"] is None:
                assert item["text"] == answer
                kinds.add("text")
                continue
            pair = answer if isinstance(answer, list) else (answer, None)
            assert item["log_likelihood"] == pytest.approx(float(pair[0]), rel=1e-4), key
            kinds.add("rolling" if pair[1] is None else "choice")
            if pair[1] is not None:
                assert item["is_greedy"] == (str(pair[1]) == "True")
        for metric in ("acc", "exact_match"):
            if metric == sample["metrics"][0]:
                (first, *_) = ours[key][0]["statistics"]
                assert first == {"metric": metric, "sums": [sample[metric], 1.0]}, key
    assert kinds == {"text", "rolling", "choice"}


def labelled(prepared, folder, name, **asked):
    """The record of a fine-tuning's examples, of rows; some prompts and their answers are long."""
    rows = folder / "rows.jsonl"
    rows.parent.mkdir()
    lines = [
        {"text": f"row {n} " + "has words " * (3 * n % 130), "n": (1, 10, 2)[n % 3]}
        for n in range(80)
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = ExamplesSpec(
        task=name, data=prepared.parent.name, prompt="{text}", items=80, validation=0.1, test=0.25,
        corpus=Corpus(source="files", files=("0" * 16,)), **asked,
    )  # fmt: skip
    result = examples.run(spec, folder, [prepared, rows], silent)
    record = Record(id=spec.id, verb="examples", spec={}, seconds={}, provenance={}, result=result)
    record.write(folder / "record.json")
    return folder / "record.json"


def test_the_offline_suite_runs_with_the_command_by_itself(prepared, tmp_path):
    """As it lies there, moved elsewhere; with the same answers, on a model trained nowhere. So do
    the tests of fine-tunings."""
    model = checkpoint(tmp_path / "checkpoint", prepared)
    spec = TasksSpec(data=prepared.parent.name, items=ITEMS)
    folder = tmp_path / "suite"
    result = tasks.run(spec, folder, [prepared], silent)
    record = Record(id="s", verb="tasks", spec={}, seconds={}, provenance={}, result=result)
    record.write(folder / "record.json")
    written = "It says: " + "and then " * 22 + "{n}"
    tests = {
        "finetune_number": {"answer": " {n}", "choices": True},
        "finetune_written": {"answer": written, "choices": False},
    }
    records = [labelled(prepared, tmp_path / name, name, **each) for name, each in tests.items()]
    names = (*result["tasks"], *tests)
    assert len(names) >= 9
    for path in (folder / "record.json", *records):
        shutil.copytree(path.parent / "tasks", tmp_path / "moved", dirs_exist_ok=True)
    theirs = by_command(model, tmp_path / "moved", names, tmp_path / "theirs")
    asked = {"held_out": record.id, "examples": tuple(tests)}
    scores, ours = by_us(
        model, [folder / "record.json", *records], names, tmp_path / "ours", **asked
    )
    assert_equal(model, theirs, ours)
    cut = {row["task"]: row["truncated"] for row in scores["scores"]}
    assert cut["finetune_written"] > 0


ROWS = """
import json
import datasets

def load(file, **_):
    with open(file, encoding="utf-8") as lines:
        rows = [json.loads(next(lines)) for _ in range(ITEMS)]
    return {"test": datasets.Dataset.from_list(rows)}
"""
RAW = {
    "raw_blimp": ("blimp/wh_island.jsonl", """
output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{[sentence_good, sentence_bad]}}"
metric_list: [{metric: acc}]
"""),
    "raw_hellaswag": ("hellaswag/hellaswag_val_native_subset.jsonl", """
output_type: multiple_choice
doc_to_text: "{{activity_label}}: {{ctx}}"
doc_to_target: label
doc_to_choice: endings
metric_list: [{metric: acc}, {metric: acc_norm}]
"""),
    "raw_sst2": ("sst2/dev.jsonl", """
fewshot_split: test
num_fewshot: 2
output_type: multiple_choice
doc_to_text: "{{text}}\\\\nQuestion: good or bad?\\\\nAnswer:\\\\n"
doc_to_target: label
doc_to_choice: [bad, good]
metric_list: [{metric: acc}]
"""),
    "raw_stories": ("tinystories_ppl/stories500.jsonl", """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{metric: bits_per_byte}]
"""),
    "raw_write": ("tinystories_ppl/stories500.jsonl", """
output_type: generate_until
doc_to_text: "{{text[:60]}}"
doc_to_target: "{{text[60:90]}}"
generation_kwargs: {until: ["."], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
"""),
}  # fmt: skip


def test_real_tasks_on_a_real_llama(shared, tmp_path):
    """Raw BLiMP, HellaSwag, SST-2 and stories; two of them, and the tokenizer, add BOS."""
    model, folder = shared("models", "stories260K"), tmp_path / "raw"
    folder.mkdir()
    (folder / "rows.py").write_text(ROWS.replace("ITEMS", str(ITEMS)))
    for name, (file, text) in RAW.items():
        head = f"task: {name}\ncustom_dataset: !function rows.load\ntest_split: test\n"
        head += f"dataset_kwargs: {{file: {shared('eval', *file.split('/'))}}}\n"
        (folder / f"{name}.yaml").write_text(head + text)
    names = tuple(RAW)
    theirs = by_command(model, folder, names, tmp_path / "theirs")
    result, ours = by_us(model, [folder], names, tmp_path / "ours", include="digest")
    assert_equal(model, theirs, ours)
    assert result["model"]["bos"] == "stock"
    # ours charges BOS once: the stock path pays for a second one in every text
    once = EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=("raw_stories",), include="digest")
    (tmp_path / "once").mkdir()
    found = evaluate.run(once, tmp_path / "once", [model, folder], silent)
    stock = next(r for r in result["scores"] if r["metric"] == "bits_per_byte")
    assert found["scores"][0]["value"] < stock["value"] - 0.005
