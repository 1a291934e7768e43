"""Which key of a task file lm-eval broke on, and what to write there.

lm-eval checks few keys: what is wrong shows where one is used, as an exception of Python's own
("TypeError:", "KeyError: None"). So it is told by the function of lm-eval's that was at work.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from dataclasses import fields
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.registry import metric_registry
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.config.task import TaskConfig

from llama_bench.fields import unknown

_LM_EVAL = Path(lm_eval.__file__).parent
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib"))
_SPLITS = (
    "test_split, validation_split, training_split, fewshot_split: one of them is lacking, or names "
    "a split that the data do not have"
)
# by the function in lm-eval's api/ or evaluator_utils.py
_KEYS = {
    "doc_to_text": 'doc_to_text: give a column, or a template such as "{{question}}"',
    "doc_to_target": 'doc_to_target: give a column, or a template such as "{{answer}}"',
    "doc_to_choice": "doc_to_choice: give a list, a column that holds one, or a template of one",
    "sample": "num_fewshot: more examples are asked for than the split that they are taken from "
    "has besides the question; ask for fewer shots",
    **dict.fromkeys(
        ("training_docs", "validation_docs", "test_docs", "fewshot_docs", "eval_docs"), _SPLITS
    ),
    "download": "dataset_path, dataset_name, dataset_kwargs: the data cannot be read",
    "_compute_task_aggregations": "metric_list: a metric or its aggregation does not suit the "
    "task's output_type",
}
_NO_METRIC = re.compile(r"\W*(\S+) not found in the evaluate library")
_NO_KEY = re.compile(r"TaskConfig\S* got an unexpected keyword argument '(\w+)'")


def advice(error: BaseException, logged: str) -> str | None:
    """Of an exception that lm-eval raised while it made or asked a task, and what it logged last;
    None where nothing more is known than the exception says."""
    if found := _NO_KEY.match(str(error)):
        return unknown(found[1], [field.name for field in fields(TaskConfig)], "key")
    if isinstance(error, KeyError) and (found := _NO_METRIC.match(logged)):
        return f"metric_list: {unknown(found[1], list(metric_registry), 'metric')}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*_LIBRARIES, "<")) or _is_of_a_task(frame.filename):
            return None  # a function of the task's own, whose message is its author's
        if frame.name in _KEYS and Path(frame.filename).is_relative_to(_LM_EVAL):
            return _KEYS[frame.name]
    return None


def _is_of_a_task(path: str) -> bool:
    """Whether code belongs to one of the tasks that come with lm-eval."""
    tasks = _LM_EVAL / "tasks"
    return Path(path).is_relative_to(tasks) and Path(path).parent != tasks


def refuse_lost_answer(task: Task) -> None:
    """Raises ValueError where `doc_to_target` is a word that is no column and none of the choices:
    lm-eval takes it for the answer to every item, so that none is ever right."""
    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE != "multiple_choice":
        return
    word = task.config.doc_to_target
    is_word = isinstance(word, str) and re.fullmatch(r"[^\W\d]\w*", word)
    if not is_word or word in task.features or task.multiple_input or task.config.process_results:
        return
    if not any(word in task.doc_to_choice(doc) for doc in task.eval_docs):
        said = unknown(word, task.features, "column")
        raise ValueError(f"doc_to_target: {said}. It is none of the choices either")


def without_value(name: str, task: Task, results: dict[str, Any]) -> list[dict[str, str]]:
    """Rows of `failed`: metrics that the task's file lists, and lm-eval's `results` do not have.
    It leaves out in silence what it does not know, or what an output_type does not give."""
    known, found = {key.partition(",")[0] for key in results}, []
    for listed in task.config.metric_list or ():
        metric = getattr(listed["metric"], "__name__", listed["metric"])
        if metric in known or metric == "bypass":
            continue
        why = f"the task's output_type, {task.OUTPUT_TYPE}, has none"
        if task.config.process_results:
            why = "the task's process_results give none"
        elif metric not in metric_registry:
            why = unknown(metric, list(metric_registry), "metric")
        reason = f"no value of {metric}, which metric_list asks for: {why}"
        found.append({"task": name, "status": "failed", "reason": reason})
    return found


def cause(error: BaseException) -> BaseException:
    """What an exception was raised from: the libraries that read data say less in their own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
