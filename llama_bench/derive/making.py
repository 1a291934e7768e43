"""How a study was made: on what, with what, and where its time went.

A run's useful work begins when interpreter and imports are behind it (`seconds_startup`), so the
share of time without useful work is start-up times threads, and where the runs say when they
began, also the cores that no run had: cores x wall less what the runs held.
"""

from __future__ import annotations

from typing import Any

from llama_bench.derive import show

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
                longest["id"],
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
    span = _span(known, provenance)
    if span:
        cores, wall = span
        idle = max(0.0, cores * wall - held)
        share = (idle + startup) / max(cores * wall, held)
        told.append(
            f"From the first run's start to the last one's end {show.duration(wall)} passed on "
            f"{show.plural(cores, 'core')}; {show.percent(idle / max(cores * wall, held))} of "
            "cores × wall was held by no run. Start-up and waiting together, time in which no run "
            f"did useful work, were {show.percent(share)}."
        )
    return told


def _span(known, provenance) -> tuple[int, float] | None:
    """(cores, seconds in which the study was being run); None where that cannot be known."""
    began = provenance.set_index("run")[["began", "cores"]]
    rows = known.join(began, on="id").dropna(subset=["began", "cores"])
    if len(rows) < len(known) or rows["host"].nunique() != 1:
        return None
    wall, end = 0.0, None
    for row in rows.sort_values("began").itertuples():
        finish = row.began + row.seconds_total
        if end is None or row.began - end > PAUSE_SECONDS:
            wall += row.seconds_total
        else:
            wall += max(0.0, finish - end)
        end = finish if end is None else max(end, finish)
    return int(rows["cores"].max()), wall


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
