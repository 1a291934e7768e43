"""What was studied: which models, on what text, by how many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_bench.derive.entry import NO_RECORD
from llama_bench.derive.words import show

FILES_NAMED = 3


def sentence(content, config: dict[str, Any]) -> str:
    """What was studied, in one sentence."""
    runs, trainings, data = content["runs"], content["trainings"], content["data"]
    loaded = runs.loc[runs["origin"] == "pretrained", "model"].nunique()
    parts = []
    if len(trainings):
        sizes = trainings["parameters_without_embeddings"].dropna()
        corpus = data.loc[data["part"] == "train"]
        span = f"of {_range(sizes)} parameters without embeddings, "
        on = f" of {_corpus(corpus.iloc[0], config)}" if len(corpus) else ""
        parts.append(
            f"{show.plural(trainings['model'].nunique(), 'Llama')} {span}"
            f"trained on {_range(trainings['budget'].dropna())} tokens{on}"
        )
    if loaded:
        parts.append(f"{show.plural(loaded, 'model')} trained elsewhere")
    models = "; ".join(parts) or "No model has a result yet"
    return f"{models}. Runs: {show.listed(_counted(runs))}."


def _counted(runs) -> list[str]:
    """Per verb the runs that have a record, and of how many where some have none."""
    counted = []
    for verb, mine in runs.drop_duplicates(["verb", "id"]).groupby("verb", sort=False):
        made = int((mine["status"] != NO_RECORD).sum())
        of = "" if made == len(mine) else f" of {len(mine)}"
        counted.append(f"{made}{of} {verb}")
    return counted


def _range(values) -> str:
    low, high = show.short(values.min()), show.short(values.max())
    return low if low == high else f"{low} to {high}"


def _corpus(row, config: dict[str, Any]) -> str:
    names = {
        "python-stdlib": "Python’s standard library",
        "python-packages": "the installed Python packages",
        "files": _files(config),
    }
    return (
        f"{names.get(row['corpus'], row['corpus'])} ({show.binary(row['bytes'])} of training text)"
    )


def _files(config: dict[str, Any]) -> str:
    """The files of the corpus by their names; where they lie is no matter of the report."""
    given = (config.get("data") or {}).get("corpus") or []
    names = [Path(path).name for path in ([given] if isinstance(given, str) else given)]
    if len(names) > FILES_NAMED:
        names = [*names[:FILES_NAMED], f"{len(names) - FILES_NAMED} more files"]
    return show.listed(names) or "the given files"


def without_loss(content) -> str:
    """A sentence, and a blank, where trainings were asked for and none has a loss; else nothing."""
    runs = content["runs"]
    runs = runs[(runs["verb"] == "train") & (runs["status"] != "ok")].drop_duplicates("id")
    if not len(runs) or content["trainings"]["loss"].notna().any():
        return ""
    found = runs["status"].value_counts(sort=False)
    found = found.rename({NO_RECORD: "without a record"})
    ended = show.listed(f"{count} {status}" for status, count in found.items())
    return f"No training has a result: {ended}. "


def nothing_to_compare(content) -> str:
    models = content["runs"]["model"].nunique()
    if models < 2:
        return "One model: a comparison over sizes needs at least two."
    return "No two runs with a result can be compared yet; the failures are listed below."
