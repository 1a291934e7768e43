"""Groups of tasks: taken apart into tasks that are asked one by one, and put together again.

lm-eval reads the data of all tasks of a group before it asks the first. Here a task is made when
its turn has come, so that each is finished, or fails, by itself. A group's score is lm-eval's own
aggregation of its tasks' scores, weighted as the group's file says; a group that lacks one of its
tasks, or of whose tasks one has no value, has none, for it would be a mean of something else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.evaluator_utils import EvalAcc, aggregate_groups
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry, Kind

from llama_bench import records
from llama_bench.measure.evaluation import items
from llama_bench.measure.evaluation.finished import PARTS, Finished
from llama_bench.measure.evaluation.odd_rows import LenientTask
from llama_bench.measure.evaluation.remarks import COUNTED
from llama_bench.measure.evaluation.standard_errors import of_weighted_means


@Task.register  # lm-eval's groups look for their tasks by this type
@dataclass(frozen=True)
class Leaf:
    """A task that is not made yet; `asked` tells it from the same task under another group's
    settings."""

    task_name: str
    asked: str
    make: Callable[[], Task] = field(compare=False)


class _Unmade(TaskFactory):
    """Groups and tags as lm-eval builds them, of leaves."""

    def _build_task(self, entry: Entry, overrides: dict | None) -> Leaf:
        own = dict(overrides or {})
        name = own.pop("task", entry.name)
        own.pop("task_alias", None)  # a name to show
        # a function says its name, not where it lies in memory
        said = json.dumps(own, sort_keys=True, default=lambda one: getattr(one, "__name__", ""))
        return Leaf(name, f"{name}:{said}", partial(self._made, entry, overrides))

    def _made(self, entry: Entry, overrides: dict | None) -> Task:
        overrides = dict(overrides or {})
        of_its_own = "class" in self._load_full_config(entry, overrides)
        if not of_its_own:
            overrides["class"] = LenientTask
        return super()._build_task(entry, overrides)

    def _build_group_members(self, members, group_name, overrides, registry) -> list:
        listed = []
        for member in members:
            own = dict(member) if isinstance(member, dict) else {"task": member}
            if "group" not in own and "task" in own and own["task"] not in registry:
                # a task that stands in its group's file alone, under lm-eval's name for it
                own["task"] = f"{group_name}::{own['task']}"
                registry[own["task"]] = Entry(own["task"], Kind.TASK, None, cfg=own)
                member = own
            listed.append(member)
        return super()._build_group_members(listed, group_name, overrides, registry)


def taken_apart(manager: TaskManager, name: str) -> tuple[list[Leaf], list[Group]]:
    """The leaves of a task, tag or group, and its groups, those within others first."""
    manager._factory = _Unmade()
    loaded = manager.load([name])
    return list(loaded["tasks"].values()), list(reversed(loaded["groups"].values()))


def put_together(groups: list[Group], finished: dict[str, Finished]) -> tuple[Finished, list[dict]]:
    """The groups' scores from those of their tasks, and rows of `failed` for groups that lack
    some of these."""
    whole, failed = [], []
    for group in groups:
        names = [leaf.task_name for leaf in group.get_all_tasks()]
        lacking = [name for name in names if name not in finished]
        if not lacking:
            whole.append(group)
        elif group.has_aggregation:
            shown = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            reason = (
                f"no score of the group: it lacks {len(lacking)} of {len(names)} tasks ({shown})"
            )
            failed.append({"task": group.name, "status": "failed", "reason": reason})
    failed += [row for group in whole for row in _valueless(group, finished)]
    own = _as_lm_eval(whole, finished)
    scores = [row for group in whole for row in _rows(group, own, finished)]
    return Finished(items.SCHEMA.empty_table(), scores=scores, own=own), failed


def _as_lm_eval(groups: list[Group], finished: dict[str, Finished]) -> dict:
    """The groups' part of lm-eval's own result."""
    own = {part: {} for part in PARTS}
    for each in finished.values():
        for part in PARTS:
            own[part] |= each.own[part]
    metrics = {
        name: {
            key: math.nan if value is None else value
            for key, value in results.items()
            if value is not None or "_stderr," not in key
        }
        for name, results in own["results"].items()
    }
    found = EvalAcc(
        metrics=metrics,
        num_fewshot=own["n-shot"],
        higher_is_better=own["higher_is_better"],
        groups={group.name: group for group in groups},
    )
    answered = aggregate_groups(found)._to_eval_results()
    names = {group.name for group in groups}
    return records.finite(
        {
            part: {name: value for name, value in answered[part].items() if name in names}
            for part in PARTS
        }
    )


def _rows(group: Group, own: dict, finished: dict[str, Finished]) -> list[dict]:
    """docs/protocol.md's `scores` of a group; of rows, in which what cannot be scored is wrong."""
    names = dict.fromkeys(leaf.task_name for leaf in group.get_all_tasks())
    parts = [finished[name] for name in names]
    values, chances = _mean_of(group, finished, "value"), _mean_of(group, finished, "chance")
    firsts = [part.scores[0] for part in parts if part.scores]
    about = {
        "task": group.name,
        "version": None if group.version == "N/A" else group.version,
        "shots": own["n-shot"].get(group.name),
        **{kind: sum(row[kind] for row in firsts) for kind in COUNTED},
    }
    found, told = [], _told(group, finished)
    first = group.aggregate_metric_list[0].metric if group.has_aggregation else None
    for key, value in values.items():
        if math.isnan(value):
            continue
        metric, _, filtered = key.partition(",")
        mine = [rows[key] for rows in told.values() if key in rows]
        errors = [(row["value"], row["standard_error"], row["items"]) for row in mine]
        found.append(
            {
                **about,
                "metric": metric,
                "filter": filtered,
                "value": value,
                "standard_error": of_weighted_means(value, errors),
                "chance": None if math.isnan(chances[key]) else chances[key],
                "higher_is_better": own["higher_is_better"].get(group.name, {}).get(metric),
                "items": sum(row["items"] for row in mine),
                "first": metric == first,
            }
        )
    return found


def _valueless(group: Group, finished: dict[str, Finished]) -> Iterator[dict]:
    """Rows of `failed`: the group's metrics of which some of its tasks have no value."""
    parts = {leaf.task_name: finished[leaf.task_name].scores for leaf in group.get_all_tasks()}
    means = _mean_of(group, finished, "value")
    for key, value in means.items():
        if math.isnan(value):
            without = [
                name
                for name, rows in parts.items()
                if any(f"{r['metric']},{r['filter']}" == key and r["value"] is None for r in rows)
            ]
            metric = key.partition(",")[0]
            reason = f"no {metric} of the group, for there is none of {', '.join(without)}"
            yield {"task": group.name, "status": "failed", "reason": reason}
    known = {key.partition(",")[0] for key in means}
    for metric in dict.fromkeys(asked.metric for asked in group.aggregate_metric_list or ()):
        if metric not in known:
            reason = f"no {metric} of the group: none of its tasks has it"
            yield {"task": group.name, "status": "failed", "reason": reason}


def _told(group: Group, finished: dict[str, Finished]) -> dict[str, dict[str, dict]]:
    """By task of the group, its rows by lm-eval's "metric,filter". Of a metric that some tasks list
    and others have from us alone, those that list it count, as they do in lm-eval."""
    names = dict.fromkeys(leaf.task_name for leaf in group.get_all_tasks())
    listed = {name: set(finished[name].own["results"][name]) for name in names}
    somewhere = set().union(*listed.values())
    found = {}
    for name in names:
        rows = {f"{row['metric']},{row['filter']}": row for row in finished[name].scores}
        found[name] = {
            key: row for key, row in rows.items() if key in listed[name] or key not in somewhere
        }
    return found


def _mean_of(group: Group, finished: dict[str, Finished], column: str) -> dict[str, float]:
    """A column of its tasks' rows, weighted as the group says, by lm-eval's "metric,filter"; NaN
    where one of them has none."""
    metrics = {}
    for name, rows in _told(group, finished).items():
        values = {key: row[column] for key, row in rows.items()}
        metrics[name] = {key: math.nan if value is None else value for key, value in values.items()}
        metrics[name]["sample_len"] = finished[name].own["results"][name].get("sample_len", 0)
    return {
        key: value
        for key, value in group.aggregate(metrics).items()
        if "," in key and "_stderr," not in key
    }
