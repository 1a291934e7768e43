"""The tasks of a suite, asked of a model one after the other through lm-eval.

Tasks fail alone, those of a group too: one whose data cannot be had, whose code breaks, or which
does not fit into memory, is a row of `failed`, and the others keep their scores. What says
something about the model (it gives no numbers) ends the run as its result; what says something
about the moment (a Hub that does not answer) ends it as an accident, once all other tasks are
finished, to be tried again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants
from lm_eval import evaluator
from lm_eval.api.group import Group

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure.evaluation import items, known_tasks, scores, task_errors
from llama_bench.measure.evaluation.finished import PARTS, Finished, Kept
from llama_bench.measure.evaluation.groups import Leaf, put_together, taken_apart
from llama_bench.measure.job import Failure
from llama_bench.measure.memory import is_out_of_memory, release
from llama_bench.measure.questions.task_files import WHOLE_PROMPTS
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec

# Python's own, requests' and httpx's: by name, for which of them is there is the Hub's affair
_OUT_OF_REACH = {"ConnectionError", "TimeoutError", "TransportError"}
_LATER = "out of reach"  # no result: to be tried again


def ask(
    lm, spec: EvaluateSpec, names: list[str], folders: list[Path], kept: Kept, progress
) -> tuple[list[Finished], list[dict]]:
    """What each task and group gave, finished before or now, and rows of those that failed."""
    leaves, groups, failed = _taken_apart(names, folders)
    finished, out_of_reach, of = {}, [], len(leaves)
    for number, leaf in enumerate(leaves):
        name = leaf.task_name
        found, row = kept.load(leaf.asked), None
        if found is not None:
            progress(number + 1, of, f"{name}, finished before")
        else:
            lm.progress = lambda done, all_, n=number, t=name: progress(n + done / all_, of, t)
            found, row = _attempted(lambda one=leaf: _answer(lm, spec, one), name)
            if found is not None:
                kept.save(leaf.asked, found)
        if found is not None:
            finished[name] = found
            failed += found.failed
        elif row["status"] == _LATER:
            out_of_reach.append(f"{name} ({row['reason']})")
        else:
            failed.append(row)
            release()  # what a task that did not fit has left
    if out_of_reach:
        raise Failure(
            f"out of reach: data of {', '.join(out_of_reach)}; the other tasks are finished and "
            "kept; start again once the Hub answers"
        )
    together, lacking = put_together(groups, finished)
    return [*finished.values(), together], failed + lacking


def _taken_apart(
    names: list[str], folders: list[Path]
) -> tuple[list[Leaf], list[Group], list[dict]]:
    """The leaves and groups of all names, each once, and rows of names that mean none."""
    leaves: dict[str, Leaf] = {}
    groups: dict[str, Group] = {}
    failed = []
    manager, row = _attempted(lambda: known_tasks.manager(names, folders), ", ".join(names))
    if manager is None:
        return [], [], [row]
    for name in names:
        found, row = _attempted(lambda one=name: taken_apart(manager, one), name)
        if found is None:
            failed.append(row)
            continue
        groups |= {group.name: group for group in found[1]}
        for leaf in found[0]:
            if leaves.setdefault(leaf.task_name, leaf).asked != leaf.asked:
                reason = f"{name} asks it with other settings; ask {name} in a suite of its own"
                failed.append({"task": leaf.task_name, "status": "failed", "reason": reason})
    return list(leaves.values()), list(groups.values()), failed


def _attempted(work: Callable[[], Any], name: str) -> tuple[Any, dict | None]:
    """What a piece of work gives, or the row that says why it gives nothing."""
    said = _Said()
    try:
        with said:
            return work(), None
    except (Refusal, UserError):
        raise
    except Exception as error:
        logging.getLogger(__name__).exception("%s failed", name)
        status, reason = "failed", _reason(error, said.last)
        if is_out_of_memory(error):
            status, reason = "out-of-memory", first_line(error)
        elif of_the_network(error) and not constants.HF_HUB_OFFLINE:
            status, reason = _LATER, first_line(error)
        return None, {"task": name, "status": status, "reason": reason}


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


def first_line(error: BaseException) -> str:
    """The kind of an exception and what it says first; many say nothing."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


def _reason(error: BaseException, logged: str) -> str:
    """With the task file's key, where that is known, before the exception's own words."""
    if of_the_network(error):
        return f"its data is not here and HF_HUB_OFFLINE is set: {first_line(error)}"
    advice = task_errors.advice(error, logged)
    said = first_line(task_errors.cause(error))
    return f"{advice} ({said})" if advice else first_line(error) + logged


def _answer(lm, spec: EvaluateSpec, leaf: Leaf) -> Finished:
    """One task: `simple_evaluate` without its look at the machine (1.3 s)."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(spec.seed)
    task = leaf.make()
    task_errors.refuse_lost_answer(task)
    own = task.get_config("num_fewshot")
    if own is None or (spec.shots is not None and own != 0):
        task.set_config(key="num_fewshot", value=spec.shots or 0)
    task.set_fewshot_seed(seed=spec.seed)
    tasks = {leaf.task_name: task}
    lm.whole_prompts = bool((task.config.metadata or {}).get(WHOLE_PROMPTS))
    answered = evaluator.evaluate(
        lm,
        {"tasks": tasks},
        limit=spec.limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=bool(spec.chat_template),
        fewshot_as_multiturn=bool(spec.chat_template),
    )
    remarks = lm.remarks
    scores.note_lost_labels(answered, tasks, remarks)
    own = {part: answered.get(part) or {} for part in PARTS}
    return Finished(
        items=items.table(answered, tasks, remarks),
        scores=scores.rows(answered, tasks, remarks),
        answers=scores.answers(answered, tasks, remarks),
        constructions=scores.constructions(answered, tasks, remarks),
        own=records.finite(own),
        failed=task_errors.without_value(leaf.task_name, task, own["results"][leaf.task_name]),
    )
