"""How a study was made: on what, with what, and where its time went.

A run's useful work begins when interpreter and imports are behind it (`seconds_startup`), so the
share of time without useful work is start-up times threads, and where the runs say when they
began, also the cores that no run had: cores x wall less what the runs held. Apart from cores, some
of the wall time passes while every run is starting up, or none is there: no work is done at all.
"""

from __future__ import annotations

from typing import Any

from llama_bench.derive.words import show

# a gap in which nothing ran for this long is a study that was stopped, not one that waited
PAUSE_SECONDS = 60


def seconds_by_verb(runs) -> list[list[str]]:
    """Rows of shown text: verb, runs, seconds, of those start-up, the longest run."""
    known = _once(runs).dropna(subset=["seconds_total"])
    rows = []
    for verb, mine in known.groupby("verb", sort=False):
        longest = mine.loc[mine["seconds_total"].idxmax()]
        rows.append(
            [
                verb,
                str(len(mine)),
                show.duration(mine["seconds_total"].sum()),
                show.duration(mine["seconds_startup"].sum()),
                show.duration(longest["seconds_total"]),
                longest["id"]
                if show.absent(longest["model"])
                else f"{longest['model']} ({longest['id']})",
            ]
        )
    return rows


def _once(runs):
    """A run that the study calls by two names took its time once."""
    return runs.drop_duplicates("id")


def time_spent(runs, provenance) -> list[str]:
    """Sentences on where the cores' time went."""
    known = _once(runs).dropna(subset=["seconds_total", "threads"])
    if not len(known):
        return []
    held = float((known["seconds_total"] * known["threads"]).sum())
    startup = float((known["seconds_startup"].fillna(0) * known["threads"]).sum())
    told = [
        f"The {show.plural(len(known), 'run')} of this study held {show.duration(held)} of core "
        f"time (seconds × threads); {show.percent(startup / held)} of it was start-up: "
        "interpreter and imports."
    ]
    placed = _placed(known, provenance)
    return told if placed is None else [*told, *_side_by_side(placed, held, startup)]


def _side_by_side(placed, held: float, startup: float) -> list[str]:
    """What the runs' places in time show, in core time and in wall time."""
    cores = int(placed["cores"].max())
    wall = _covered(placed["began"], placed["end"], PAUSE_SECONDS)
    paused = placed["end"].max() - placed["began"].min() - wall
    idle = max(0.0, cores * wall - held)
    share = (idle + startup) / max(cores * wall, held)
    # a run that failed while it started has no useful time
    useful = placed["began"] + placed["seconds_startup"].fillna(0)
    useful = useful.clip(upper=placed["end"])
    no_work = max(0.0, round(1 - _covered(useful, placed["end"]) / wall, 4)) if wall else 0.0
    left_out = (
        f", without {show.duration(paused)} in pauses of over {PAUSE_SECONDS} s"
        if paused > 1
        else ""
    )
    return [
        f"From the first run's start to the last one's end {show.duration(wall)} passed on "
        f"{show.plural(cores, 'core')}{left_out}; "
        f"{show.percent(idle / max(cores * wall, held))} of cores × wall was held by no run. "
        f"Start-up and waiting together were {show.percent(share)} of cores × wall.",
        f"In {show.percent(no_work)} of that wall time no run did useful work: none was there, or "
        "all that were there were starting up.",
    ]


def _placed(known, provenance):
    """The runs with `began`, `end` and `cores`; None where they cannot be laid side by side."""
    began = provenance.drop_duplicates("run").set_index("run")[["began", "cores"]]
    rows = known.join(began, on="id").dropna(subset=["began", "cores"])
    if len(rows) < len(known) or rows["host"].nunique() != 1:
        return None
    return rows.assign(end=rows["began"] + rows["seconds_total"])


def _covered(begin, end, bridged: float = 0.0) -> float:
    """Seconds in the union of the intervals, gaps of up to `bridged` seconds between them too."""
    covered, reached = 0.0, None
    for start, stop in sorted(zip(begin, end, strict=True)):
        if reached is None or start - reached > bridged:
            covered += stop - start
        else:
            covered += max(0.0, stop - reached)
        reached = stop if reached is None else max(reached, stop)
    return covered


def configuration(config: dict[str, Any]) -> str:
    """The study's configuration as YAML, in the order of its keys; "" of none."""
    import yaml

    from llama_bench.config import Config

    if not config:
        return ""
    order = [key for key in Config.model_fields if key in config]
    config = {key: _whole(config[key]) for key in dict.fromkeys([*order, *config])}
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _whole(value: Any) -> Any:
    """Whole numbers as such, however a key types them: 60000.0 -> 60000."""
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def surroundings(provenance) -> list[dict[str, Any]]:
    """Each distinct machine and set of versions: {"runs", "facts": [(name, text)]}."""
    facts = [
        "host",
        "processor",
        "cores",
        "memory_bytes",
        "system",
        "python",
        "packages",
        "git_commit",
        "git_changed",
    ]
    found = []
    for _, rows in provenance.groupby(facts, dropna=False, sort=False):
        first = rows.iloc[0]
        git = show.NOTHING if show.absent(first["git_commit"]) else str(first["git_commit"])[:12]
        changed = {True: " with uncommitted changes", False: ", clean"}
        if git != show.NOTHING and not show.absent(first["git_changed"]):
            git += changed[bool(first["git_changed"])]
        cores = (
            f"{show.exact(first['cores'])} cores, {show.binary(first['memory_bytes'])} of memory"
        )
        machine = [
            ("Machine", first["host"]),
            ("Processor", f"{first['processor']}; {cores}"),
            ("System", first["system"]),
            ("Python", first["python"]),
            ("Packages", first["packages"]),
            ("Git state", git),
        ]
        shown = [(name, show.NOTHING if show.absent(value) else value) for name, value in machine]
        found.append({"runs": len(rows), "facts": shown})
    return found
