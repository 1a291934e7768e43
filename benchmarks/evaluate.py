"""How fast evaluation is beside lm-eval's own model, in one process, on the same requests.

    python benchmarks/evaluate.py [ITEMS [MODEL [SHAPE]]]

MODEL is a folder; without one, the small Llama beside the project is taken, or one is drawn at
random. SHAPE is "layers,width,heads" of one to draw instead (16,2048,32 has 1 B parameters).
HellaSwag and BLiMP are taken from beside the project, without examples and with five before every
question: other ones for each (lm-eval's default), and the same for all (`first_n`, as MMLU has
them); TinyStories are read whole, and written on. Without these files the tasks of the offline
suite are. Both answer the same requests in turn; lm-eval's batch is the fastest of those tried.
Prints JSON: median seconds (on a CPU this process's own), their ratio and that of the fastest
repeats (a busy machine lengthens the others) for each task, how far the answers differ, the load of
the machine before and after, the start-up of each, and what several suites of one model take.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TQDM_DISABLE"] = "1"

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_bench.measure import evaluate, model, tasks
from llama_bench.measure.evaluation.lm import CausalLM
from llama_bench.measure.job import carry_out
from llama_bench.shape import Shape
from llama_bench.specs import Corpus, EvaluateSpec, PrepareSpec, Pretrained, TasksSpec

SHARED = Path(__file__).parent.parent.parent / "shared"
REPEATS = 3
BATCHES = (1, 8, 32)
WINDOW = 2048  # of every model: five examples must fit, and rotary positions go on

ROWS = """
import json
import datasets

def load(file, items, **_):
    with open(file, encoding="utf-8") as lines:
        rows = [json.loads(row) for _, row in zip(range(items), lines)]
    return {"test": datasets.Dataset.from_list(rows)}
"""
HEAD = """
task: {name}
custom_dataset: !function rows.load
dataset_kwargs: {{file: {file}, items: {items}}}
test_split: test
num_fewshot: {shots}
fewshot_config: {{sampler: {sampler}}}
"""
EXAMPLES = {"": (0, "default"), "_5_shot": (5, "default"), "_5_shot_first_n": (5, "first_n")}
CHOICE = "output_type: multiple_choice\nmetric_list: [{metric: acc}]\n"
WRITE = (
    'output_type: generate_until\ndoc_to_text: "{{text[:200]}}"\ndoc_to_target: text\n'
    "generation_kwargs: {until: [%s], max_gen_toks: 48, do_sample: false}\n"
)
STORIES = "eval/tinystories_ppl/stories500.jsonl"
RAW = {
    "hellaswag": (
        "eval/hellaswag/hellaswag_val_native_subset.jsonl",
        CHOICE + 'doc_to_text: "{{activity_label}}: {{ctx}}"\n'
        "doc_to_target: label\ndoc_to_choice: endings\n",
    ),
    "blimp": (
        "eval/blimp/wh_island.jsonl",
        CHOICE
        + 'doc_to_text: ""\ndoc_to_target: 0\ndoc_to_choice: "{{[sentence_good, sentence_bad]}}"\n',
    ),
    "read_stories": (
        STORIES,
        'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: text\n',
    ),
    "write_48_tokens": (STORIES, WRITE % ""),
    "write_a_sentence": (STORIES, WRITE % '"."'),
}


def silent(done, of, note=""):
    pass


def prepared(folder: Path) -> Path:
    corpus = Corpus(source="python-stdlib", version="benchmark", max_bytes=2_000_000)
    spec = PrepareSpec(corpus=corpus, vocab_size=2048, held_out=0.1)
    path = folder / "prepare" / "record.json"
    with contextlib.redirect_stderr(io.StringIO()):
        carry_out("prepare", spec.canonical(), path, [])
    return path


def asked(folder: Path, items: int, corpus: Path | None) -> tuple[Path, list[str]]:
    """A folder of tasks, and their names."""
    if all((SHARED / file).exists() for file, _ in RAW.values()):
        (folder / "rows.py").write_text(ROWS)
        names = []
        for name, (file, text) in RAW.items():
            for examples, (shots, sampler) in EXAMPLES.items():
                if shots and not text.startswith(CHOICE):
                    continue
                names.append(name + examples)
                given = {"file": SHARED / file, "items": items, "shots": shots, "sampler": sampler}
                head = HEAD.format(name=names[-1], **given)
                (folder / f"{names[-1]}.yaml").write_text(head + text)
        return folder, names
    result = tasks.run(TasksSpec(data="benchmark", items=items), folder, [corpus], silent)
    return folder / "tasks", list(result["tasks"])


def loaded(words: list[str], corpus: Path | None):
    """The model on the fastest device there is, its tokenizer, and its name."""
    given = Path(words[0]) if words and words[0] else SHARED / "models/stories3M"
    tokenizer = corpus.parent / "tokenizer" if corpus else given
    if len(words) > 1 or not given.exists():
        layers, width, heads = map(int, (words[1] if len(words) > 1 else "4,256,4").split(","))
        shape = Shape(layers=layers, width=width, heads=heads)
        built = model.build(shape, len(AutoTokenizer.from_pretrained(tokenizer)), WINDOW, 0)
        named = f"{layers} layers of {width}, at random"
    else:
        built = AutoModelForCausalLM.from_pretrained(given, dtype=torch.float32)
        named, tokenizer = given.name, given
    built.config.max_position_embeddings = WINDOW
    read = AutoTokenizer.from_pretrained(tokenizer, model_max_length=WINDOW)
    device = model.device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return built.to(device, dtype).eval(), read, named


def requests_of(manager: TaskManager, name: str) -> list:
    task = manager.load([name])["tasks"][name]
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=0)
    task.build_all_requests()
    return task.instances


def timed(work) -> tuple[float, list]:
    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu else time.process_time
    began = clock()
    with contextlib.redirect_stdout(io.StringIO()):
        answers = work()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - began, answers


def compare(ours: CausalLM, theirs: HFLM, requests: list) -> dict:
    kind = requests[0].request_type
    tried = {}
    for batch in BATCHES:
        theirs.batch_size_per_gpu = batch
        tried[batch] = timed(lambda: getattr(theirs, kind)(requests))[0]
    theirs.batch_size_per_gpu = batch = min(tried, key=tried.get)
    seconds: dict[str, list[float]] = {"ours": [], "lm_eval": []}
    for _ in range(REPEATS):
        for who, lm in (("ours", ours), ("lm_eval", theirs)):
            taken, answers = timed(lambda lm=lm: getattr(lm, kind)(requests))
            seconds[who].append(taken)
            if who == "ours":
                mine = answers
    middle = {who: statistics.median(each) for who, each in seconds.items()}
    found = {"requests": len(requests), "seconds": middle, "lm_eval_batch": batch}
    found["ratio"] = middle["lm_eval"] / middle["ours"]
    found["ratio_of_fastest"] = min(seconds["lm_eval"]) / min(seconds["ours"])
    pairs = list(zip(mine, answers, strict=True))
    if kind == "generate_until":
        return found | {"other_texts": sum(ours != theirs for ours, theirs in pairs)}
    if kind == "loglikelihood":
        found["other_greedy"] = sum(ours[1] != theirs[1] for ours, theirs in pairs)
        pairs = [(ours[0], theirs[0]) for ours, theirs in pairs]
    far = max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)
    return found | {"largest_relative_difference": far}


def start_up(folder: Path) -> dict:
    """Seconds until each is ready to load a model: what a suite of its own would pay again."""
    seconds = {}
    for who, code in (
        ("ours", "import llama_bench.measure.evaluate as e; e.suite.known_tasks.manager([], [])"),
        ("lm_eval", "import lm_eval.models.huggingface, lm_eval.tasks as t; t.TaskManager()"),
    ):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        seconds[who] = time.perf_counter() - began
    return seconds


def suites(folder: Path, tasks_folder: Path, names: list[str]) -> dict:
    """Processor seconds of one suite a task, of a model in a folder: every command by itself, and
    with the others listed, so that its process goes on to them."""
    given = SHARED / "models/stories3M"
    if not given.exists():
        return {}
    seconds = {}
    for how in ("each by itself", "one goes on"):
        asked = []
        for name in names:
            spec = EvaluateSpec(pretrained=Pretrained(digest="0"), tasks=(name,), include="0")
            output = folder / how / name / "record.json"
            asked.append([spec.canonical(), str(output), str(given), str(tasks_folder)])
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        for first in asked:
            then = [word for one in asked if one is not first for word in ("--then", *one)]
            command = [sys.executable, "-m", "llama_bench", "evaluate", *first]
            command += then if how == "one goes on" else []
            subprocess.run(command, check=True, capture_output=True)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds[how] = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return {"suites": len(names), "seconds": seconds}


def main(words: list[str]) -> None:
    items, load = int(words[0]) if words else 100, [os.getloadavg()]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    evaluate._be_quiet()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        corpus = None if SHARED.exists() else prepared(folder)
        tasks_folder, names = asked(folder, items, corpus)
        built, tokenizer, named = loaded(words[1:], corpus)
        ours = CausalLM(built, tokenizer, "stock")
        theirs = HFLM(pretrained=built, tokenizer=tokenizer, batch_size=1)
        manager = TaskManager(include_path=str(tasks_folder), include_defaults=False)
        found = {
            name: compare(ours, theirs, requests)
            for name, requests in ((name, requests_of(manager, name)) for name in names)
        }
        report = {
            "load": load,
            "model": named,
            "device": str(built.device),
            "threads": torch.get_num_threads(),
            "tasks": found,
            "start_up_seconds": start_up(folder),
            "suites_of_a_model": suites(folder, tasks_folder, names[:4]),
        }
        load.append(os.getloadavg())
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
