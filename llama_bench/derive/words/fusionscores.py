"""What fused models score on tasks, beside their members."""

from __future__ import annotations

from typing import Any

from llama_bench.derive.words import fusiongrowth, fusiontext, scores, show
from llama_bench.derive.words.fusions import CONTROL, NAMES
from llama_bench.derive.words.scores import WIDTH

Cell = tuple[str, str]  # a number, and what stands small under it
_CALLED = {**NAMES, "control": CONTROL}
_KEYS = ["fuse", "model", "budget", "seed", "suite", "task", "filter"]


def told(tables) -> dict[str, Any] | None:
    """{"words", "methods", "rows"}: a row each task, by what tells it; None of no score."""
    rows = tables["fusion_scores"].dropna(subset=["difference"])
    own, called = scores.own_metrics(tables), scores.namer(rows)
    shown = []
    for key, mine in rows.groupby(_KEYS, dropna=False, sort=False):
        fuse, model, _, _, suite, task, filter = key
        metric = _metric(tables["scores"], suite, mine, own.get(task))
        mine = mine[mine["metric"] == metric]
        first = mine.iloc[0]
        shown.append(
            {
                "fuse": fuse,
                "model": show.NOTHING if show.absent(model) else model,
                "task": called(suite, task, filter),
                "metric": scores.metric_name(metric),
                "member": show.digits(first["member_value"]),
                "best": show.digits(first["best_member_value"]),
                "methods": {row["method"]: row for _, row in mine.iterrows()},
            }
        )
    found = dict.fromkeys(method for row in shown for method in row["methods"])
    methods = [method for method in _CALLED if method in found]
    for row in shown:
        row["cells"] = [_cell(row["methods"].get(method)) for method in methods]
    names = [_CALLED[method] for method in methods]
    words = [*_crossing(rows), *_words(shown)]
    return {"words": words, "methods": names, "rows": shown} if shown else None


def _metric(every, suite, mine, own: str | None) -> str:
    """As the section on fine-tuning tells the same task (of all models: `every`)."""
    same = (every["suite"] == suite) & (every["task"] == mine["task"].iloc[0])
    every = every[same & every["metric"].isin(mine["metric"])]
    return scores.telling(every.dropna(subset=["value"]), own)


def _crossing(rows) -> list[str]:
    fusions = rows.loc[rows["tasks_cross"].fillna(False).astype(bool), "fuse"].unique()
    if not len(fusions):
        return []
    return [
        f"In {show.listed(fusions)}, one task’s test documents may be among those that another "
        "task’s examples are from, for the fusion as for its control: both are made from the same "
        "documents, and divide them otherwise."
    ]


def _cell(row) -> Cell:
    if row is None:
        return show.NOTHING, ""
    error = row["standard_error"]
    return show.digits(row["value"]), fusiongrowth.signed(
        row["difference"], None if show.absent(error) else error
    )


def _words(shown: list[dict[str, Any]]) -> list[str]:
    """One sentence a fusion: each way against the member that is best at the very task."""
    said = []
    for fuse in dict.fromkeys(row["fuse"] for row in shown):
        verdicts: dict[str, list[str]] = {}
        for row in shown:
            for method, score in row["methods"].items() if row["fuse"] == fuse else ():
                verdicts.setdefault(method, []).append(_verdict(score))
        parts = [
            f"{_CALLED[method]} {fusiontext.at(verdicts[method])}"
            for method in _CALLED
            if method in verdicts
        ]
        said.append(f"{fuse}, against the member that is best at the task: {'; '.join(parts)}.")
    return said


def _verdict(score) -> str:
    error, difference = score["best_standard_error"], score["best_difference"]
    if show.absent(error) or abs(difference) <= WIDTH * error:
        return "not to be told apart"
    falls = not show.absent(score["higher_is_better"]) and not score["higher_is_better"]
    return "better" if (difference > 0) != falls else "worse"
