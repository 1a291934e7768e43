"""Questions in a model's own chat template: the scores of lm-eval's own way, end to end."""

import shutil

import pyarrow.parquet as pq
import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from llama_bench.measure import evaluate
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec, Pretrained

SHOTS = 2
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}> "
    "{{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)
ROWS = """
import datasets
WORDS = ["dog", "cat", "ball", "tree", "hat", "boat", "cake", "bird"]
def load(**_):
    rows = [
        {"q": f"Tim had a {word}. What did Tim have?", "c": ["a " + w for w in (word, other)]}
        for word, other in zip(WORDS, WORDS[3:] + WORDS[:3])
    ]
    rows = [{**row, "a": n % 2, "c": row["c"][:: 1 - 2 * (n % 2)]} for n, row in enumerate(rows)]
    return {"test": datasets.Dataset.from_list(rows)}
"""
HEAD = """
task: {name}
custom_dataset: !function rows.load
test_split: test
fewshot_split: test
doc_to_text: q
"""
TASKS = {
    "chosen": "output_type: multiple_choice\ndoc_to_choice: c\ndoc_to_target: a\n"
    "metric_list: [{metric: acc}, {metric: acc_norm}]\n",
    "said": "output_type: generate_until\ndoc_to_target: '{{c[a]}}'\n"
    'generation_kwargs: {until: ["\\n"], max_gen_toks: 12, do_sample: false}\n'
    "metric_list: [{metric: exact_match}, {metric: chrf}]\n",
}


@pytest.fixture
def talking(shared, tmp_path):
    """A real Llama whose tokenizer has a chat template, and a folder of tasks."""
    model, folder = tmp_path / "model", tmp_path / "tasks"
    shutil.copytree(shared("models", "stories260K"), model, copy_function=shutil.copyfile)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    folder.mkdir()
    (folder / "rows.py").write_text(ROWS)
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(HEAD.format(name=name) + text)
    return model, folder


def by_us(model, folder, out, **given):
    out.mkdir()
    spec = EvaluateSpec(
        pretrained=Pretrained(digest="0"), tasks=tuple(TASKS), include="digest", bos="stock",
        shots=SHOTS, **given,
    )  # fmt: skip
    result = evaluate.run(spec, out, [model, folder], lambda *a: None)
    assert result["failed"] == []
    items = pq.read_table(out / "items.parquet").to_pylist()
    return {(row["task"], row["metric"]): row["value"] for row in result["scores"]}, items


def test_chat_scores_are_lm_evals(talking, tmp_path):
    model, folder = talking
    ours, items = by_us(model, folder, tmp_path / "chat", chat_template=True)
    theirs = simple_evaluate(
        model=HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=4),
        tasks=list(TASKS), num_fewshot=SHOTS, apply_chat_template=True, fewshot_random_seed=0,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )  # fmt: skip
    for task, metrics in theirs["results"].items():
        for metric in (key.split(",")[0] for key in metrics if "," in key and "stderr" not in key):
            known = next(v for k, v in metrics.items() if k.split(",")[0] == metric)
            assert ours[task, metric] == pytest.approx(known, rel=1e-6), metric
    for task, samples in theirs["samples"].items():
        mine = {(row["doc_id"], row["choice"]): row for row in items if row["task"] == task}
        for sample in samples:
            for place, answer in enumerate(sample["filtered_resps"]):
                row = mine[sample["doc_id"], place]
                assert row["prompt"] == sample["arguments"][place][0]
                assert row["prompt"].count("<user>") == SHOTS + 1
                if task == "chosen":
                    assert row["log_likelihood"] == pytest.approx(answer[0], rel=1e-4)
                else:
                    assert row["text"] == answer
    plain, _ = by_us(model, folder, tmp_path / "plain")
    assert plain["chosen", "gold_bits_per_byte"] != ours["chosen", "gold_bits_per_byte"]


def test_a_model_without_a_template_is_refused(shared, talking, tmp_path):
    with pytest.raises(Refusal, match="has no chat template; set chat_template: false"):
        by_us(shared("models", "stories260K"), talking[1], tmp_path / "out", chat_template=True)
