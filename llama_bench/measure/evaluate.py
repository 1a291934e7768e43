"""One model on one suite of lm-eval tasks, loaded once, and its text after a few prompts.

Tasks fail alone: one whose data cannot be had, or whose code breaks, is a row of `failed`, and the
others keep their scores. What says something about the model (it gives no numbers, it does not
fit into memory) ends the run as its result; what says something about the moment (no network)
ends it as an accident, to be tried again.
"""

from __future__ import annotations

import json
import logging
import os
import random
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval draws a bar for every task
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers
from lm_eval import evaluator
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure import generation, model, scores
from llama_bench.measure.lm import CausalLM
from llama_bench.measure.memory import is_out_of_memory
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec

# Python's own, requests' and httpx's: by name, for which of them is there is the Hub's affair
_OUT_OF_REACH = {"ConnectionError", "TimeoutError", "TransportError"}

_PARTS = ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples")


def run(spec: EvaluateSpec, folder: Path, inputs: list[Path], progress) -> dict:
    """Write lm_eval.json and items.parquet; docs/protocol.md has the keys of what is returned.

    `inputs`: the training's record or the pretrained model's folder (nothing for one on the Hub),
    then the tasks' record if `held_out`, then the folder to `include`. Raises Refusal.
    """
    _be_quiet()
    rest = list(inputs)
    source = None if spec.pretrained and spec.pretrained.repo else rest.pop(0)
    tasks_record = rest.pop(0) if spec.held_out else None
    folders = [tasks_record.parent / "tasks"] if tasks_record else []
    folders += [rest.pop(0)] if spec.include else []
    try:
        loaded, tokenizer, about = _load(spec, source)
        lm = CausalLM(loaded, tokenizer)
        outcome, failed = _ask(lm, spec, folders, _left_out(tasks_record), progress)
        samples = []
        if spec.prompts and spec.prompt_tokens:
            samples = generation.samples(lm, spec.prompts, spec.prompt_tokens, spec.seed)
    except Exception as error:
        if is_out_of_memory(error):
            raise Refusal("out-of-memory", str(error).splitlines()[0]) from error
        raise
    _write(outcome, folder)
    return {
        "parameters": model.count(loaded),
        "scores": scores.rows(outcome, lm.unscored, lm.truncated),
        "failed": failed,
        "samples": samples,
        "model": about,
    }


def _be_quiet() -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _load(
    spec: EvaluateSpec, source: Path | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict]:
    """The model on the fastest device there is, its tokenizer, and what was really loaded."""
    dtype = getattr(torch, spec.precision)
    if source is None:
        named, revision = spec.pretrained.repo, spec.pretrained.revision
        about = {"repo": named, "path": None}
    else:
        named, revision = source.parent / "checkpoint" if spec.train else source, None
        about = {"repo": None, "path": str(named)}
    loaded = model.load(named, revision, dtype)
    commit = getattr(loaded.config, "_commit_hash", None) if revision else None
    tokenizer = _tokenizer(named, commit or revision)
    _refuse_misfits(loaded, tokenizer, named)
    about |= {
        "commit": commit,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "context": loaded.config.get_text_config().max_position_embeddings,
    }
    return loaded.to(model.device()).eval(), tokenizer, about


def _tokenizer(named: Path | str, revision: str | None) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(
            named, revision=revision or "main", local_files_only=revision is None
        )
    except Exception as error:  # what it raises depends on which file is missing or broken
        if _of_the_network(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refusal("refused", f"{named} has no tokenizer that can be loaded: {first}") from error


def _of_the_network(error: BaseException | None) -> bool:
    """Whether an exception, or one that it came from, says that something was out of reach."""
    while error is not None:
        if _OUT_OF_REACH & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__ or error.__context__
    return False


def _refuse_misfits(loaded: PreTrainedModel, tokenizer, named) -> None:
    """A model that would give nonsense without a complaint."""
    rows = loaded.get_input_embeddings().weight.shape[0]
    ids = max(tokenizer.get_vocab().values(), default=-1) + 1
    if ids > rows:
        raise Refusal("refused", f"{named}: its tokenizer has {ids} ids, the model {rows}")
    for name, weight in loaded.named_parameters():
        if not torch.isfinite(weight).all():
            raise Refusal("diverged", f"{named}: {name} holds numbers that are not finite")


def _left_out(tasks_record: Path | None) -> dict[str, str]:
    return records.read(tasks_record).result["left_out"] if tasks_record else {}


def _ask(
    lm: CausalLM, spec: EvaluateSpec, folders: list[Path], left_out: dict[str, str], progress
) -> tuple[dict, list[dict]]:
    """lm-eval's results of all tasks, merged, and the tasks that failed."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(spec.seed)
    wanted = [name for name in spec.tasks if name not in left_out]
    failed: list[dict] = []  # what the corpus did not allow stands in the tasks' record
    manager = _manager(wanted, folders)
    outcome: dict = {part: {} for part in (*_PARTS, "samples")}
    for number, name in enumerate(wanted):
        lm.progress = lambda done, of, n=number, t=name: progress(n + done / of, len(wanted), t)
        try:
            answered = _answer(lm, spec, manager, name)
        except (Refusal, UserError):
            raise
        except Exception as error:
            if is_out_of_memory(error) or _of_the_network(error):
                raise
            logging.getLogger(__name__).exception("%s failed", name)
            first = (str(error).strip().splitlines() or [""])[0]
            failed.append({"task": name, "reason": f"{type(error).__name__}: {first}"})
            continue
        for part in outcome:
            outcome[part] |= answered.get(part) or {}
    return outcome, failed


def _manager(wanted: list[str], folders: list[Path]) -> TaskManager:
    """Indexing lm-eval's own tasks reads 14,000 files (13 s): only where one of them is asked."""
    paths = [str(path) for path in folders]
    manager = TaskManager(include_path=paths, include_defaults=False)
    if set(wanted) <= set(manager.all_tasks):
        return manager
    return TaskManager(include_path=paths, include_defaults=True)


def _answer(lm: CausalLM, spec: EvaluateSpec, manager: TaskManager, name: str) -> dict:
    """One task, tag or group: `simple_evaluate` without its look at the machine (1.3 s)."""
    loaded = manager.load([name])
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (spec.shots is not None and own != 0):
            task.set_config(key="num_fewshot", value=spec.shots or 0)
        task.set_fewshot_seed(seed=spec.seed)
    return evaluator.evaluate(lm, loaded, limit=spec.limit, bootstrap_iters=0, log_samples=True)


def _write(outcome: dict, folder: Path) -> None:
    """lm-eval's own result without its samples, and these as a table."""
    own = {part: outcome[part] for part in _PARTS}
    text = json.dumps(records.finite(own), indent=1, sort_keys=True, default=str)
    records.write_text(folder / "lm_eval.json", text + "\n")
    aside = folder / ".items.parquet"
    pq.write_table(scores.items(outcome["samples"]), aside, compression="zstd")
    os.replace(aside, folder / "items.parquet")
