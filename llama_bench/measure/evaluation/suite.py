"""The tasks of a suite, asked of a model one after the other through lm-eval.

Tasks fail alone: one whose data cannot be had, or whose code breaks, is a row of `failed`, and the
others keep their scores. What says something about the model (it gives no numbers, it does not
fit into memory) ends the run as its result; what says something about the moment (a Hub that does
not answer) ends it as an accident, once all other tasks are finished, to be tried again.
"""

from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import constants
from lm_eval import evaluator
from lm_eval.tasks import TaskManager

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure.evaluation import items, scores
from llama_bench.measure.evaluation.finished import PARTS, Finished, Kept
from llama_bench.measure.job import Failure
from llama_bench.measure.memory import is_out_of_memory
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec

# Python's own, requests' and httpx's: by name, for which of them is there is the Hub's affair
_OUT_OF_REACH = {"ConnectionError", "TimeoutError", "TransportError"}


def ask(
    lm, spec: EvaluateSpec, names: list[str], folders: list[Path], kept: Kept, progress
) -> tuple[list[Finished], list[dict]]:
    """What each task gave, finished before or now, and rows of those that failed."""
    manager = None
    finished, failed, out_of_reach = [], [], []
    for number, name in enumerate(names):
        before = kept.load(name)
        if before is not None:
            finished.append(before)
            progress(number + 1, len(names), f"{name}, finished before")
            continue
        lm.progress = lambda done, of, n=number, t=name: progress(n + done / of, len(names), t)
        said = _Said()
        try:
            with said:
                manager = manager or _manager(names, folders)
                now = _answer(lm, spec, manager, name)
        except (Refusal, UserError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            logging.getLogger(__name__).exception("%s failed", name)
            if of_the_network(error) and not constants.HF_HUB_OFFLINE:
                out_of_reach.append(f"{name} ({_first_line(error)})")
            else:
                failed.append({"task": name, "reason": _reason(error) + said.last})
            continue
        kept.save(name, now)
        finished.append(now)
    if out_of_reach:
        raise Failure(
            f"out of reach: data of {', '.join(out_of_reach)}; the other tasks are finished and "
            "kept; start again once the Hub answers"
        )
    return finished, failed


class _Said(logging.Handler):
    """What lm-eval logs as an error: some of its exceptions do not say what is wrong."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = f" ({record.getMessage().splitlines()[0]})"

    def __enter__(self) -> None:
        logging.getLogger("lm_eval").addHandler(self)

    def __exit__(self, *_) -> None:
        logging.getLogger("lm_eval").removeHandler(self)


def of_the_network(error: BaseException | None) -> bool:
    """Whether an exception, or one that it came from, says that something was out of reach."""
    while error is not None:
        if _OUT_OF_REACH & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _reason(error: BaseException) -> str:
    if of_the_network(error):
        return f"its data is not here and HF_HUB_OFFLINE is set: {_first_line(error)}"
    return _first_line(error)


def _manager(wanted: list[str], folders: list[Path]) -> TaskManager:
    """Indexing lm-eval's own tasks reads 14,000 files (13 s): only where one of them is asked."""
    paths = [str(path) for path in folders]
    manager = TaskManager(include_path=paths, include_defaults=False)
    if set(wanted) <= set(manager.all_tasks):
        return manager
    return TaskManager(include_path=paths, include_defaults=True)


def _answer(lm, spec: EvaluateSpec, manager: TaskManager, name: str) -> Finished:
    """One task, tag or group: `simple_evaluate` without its look at the machine (1.3 s)."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(spec.seed)
    loaded = manager.load([name])
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (spec.shots is not None and own != 0):
            task.set_config(key="num_fewshot", value=spec.shots or 0)
        task.set_fewshot_seed(seed=spec.seed)
    answered = evaluator.evaluate(
        lm,
        loaded,
        limit=spec.limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=bool(spec.chat_template),
        fewshot_as_multiturn=bool(spec.chat_template),
    )
    tasks, remarks = loaded["tasks"], lm.remarks
    own = {part: answered.get(part) or {} for part in PARTS}
    return Finished(
        items=items.table(answered, tasks, remarks),
        scores=scores.rows(answered, tasks, remarks),
        answers=scores.answers(answered, tasks, remarks),
        constructions=scores.constructions(answered, tasks, remarks),
        own=records.finite(own),
    )
