"""One model on one suite of lm-eval tasks, and its text after a few prompts.

The suite is asked task by task (suite.py), and what is finished is kept until all are, so that a
run that was stopped goes on. The model is asked through an adapter: lm.py in this process,
served_lm.py behind a vLLM server; it can stay loaded for the next suite.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval draws a bar for every task
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pyarrow as pa
import transformers

from llama_bench import records
from llama_bench.measure import memory, model
from llama_bench.measure.evaluation import adapters, generation, items, suite
from llama_bench.measure.evaluation.finished import PARTS, Finished, Kept, write_table
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec


def run(spec: EvaluateSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Write lm_eval.json and items.parquet; docs/protocol.md has the keys of what is returned.

    `inputs`: the record of the run that made the model or the pretrained one's folder (nothing for
    one on the Hub), the tasks' record if `held_out`, a record for each of `examples`, the folder
    to `include`. Raises Refusal.
    """
    _be_quiet()
    rest = list(inputs)
    source = None if spec.pretrained and spec.pretrained.repo else rest.pop(0)
    tasks_record = rest.pop(0) if spec.held_out else None
    folders = [tasks_record.parent / "tasks"] if tasks_record else []
    folders += [rest.pop(0).parent / "tasks" for _ in spec.examples or ()]
    folders += [rest.pop(0)] if spec.include else []
    left_out = records.read(tasks_record).result["left_out"] if tasks_record else {}
    names = [name for name in spec.tasks if name not in left_out]
    kept = Kept(spec, folder)
    try:
        with memory.bounded(model.device()):
            opened = _opened(spec, source, folder)
            lm = opened.adapter(spec)
            finished, failed = suite.ask(lm, spec, names, folders, kept, progress)
            samples, lacking = _samples(lm, spec)
    finally:
        _last.leave()
    _write(finished, folder)
    kept.forget()
    return {
        "parameters": opened.parameters,
        "scores": [row for task in finished for row in task.scores],
        "answers": [row for task in finished for row in task.answers],
        "constructions": [row for task in finished for row in task.constructions],
        "failed": failed + lacking,
        "samples": samples,
        "model": opened.loaded(spec),
    }


_last = adapters.Last()


def stay(on: bool) -> None:
    """Whether the model stays loaded after a run, for the next one of this process."""
    _last.stays = on
    _last.leave()


def _opened(spec: EvaluateSpec, source: Path | None, folder: Path) -> adapters.Opened:
    """A model that does not fit into memory is refused."""
    try:
        return _last.opened(spec, source, folder)
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise Refusal("out-of-memory", suite.first_line(error)) from error
        raise


def _samples(lm, spec: EvaluateSpec) -> tuple[list[dict], list[dict]]:
    """Rows of `samples`, or one of `failed` where memory does not suffice."""
    if not (spec.prompts and spec.prompt_tokens):
        return [], []
    try:
        return generation.samples(lm, spec.prompts, spec.prompt_tokens, spec.seed), []
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        row = {"task": "prompts", "status": "out-of-memory", "reason": suite.first_line(error)}
        return [], [row]


def _be_quiet() -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _write(finished: list[Finished], folder: Path) -> None:
    """lm-eval's own result without its samples, and these as a table."""
    own: dict = {part: {} for part in PARTS}
    for task in finished:
        for part in PARTS:
            own[part] |= task.own[part]
    text = json.dumps(own, indent=1, sort_keys=True, default=str)
    records.write_text(folder / "lm_eval.json", text + "\n")
    tables = [items.SCHEMA.empty_table(), *(task.items for task in finished)]
    write_table(pa.concat_tables(tables), folder / "items.parquet")
