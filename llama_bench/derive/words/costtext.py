"""What the section on speed and memory says in words: what the device can do, how much of that is
reached, and what could not be measured."""

from __future__ import annotations

from llama_bench.derive.words import show, ways

# of a cell's median (tables/repeats.py)
INTERVAL = "a 95 % interval, the span of the repeats where their rounds differ"


def words(tables) -> list[str]:
    """Sentences; none of what was not measured."""
    cells = tables["cells"]
    said = [
        *_limits(tables["limits"]),
        _reached(cells),
        _not_held_against(cells, tables["limits"]),
        _energy(cells),
        _remarks(cells),
        _busy(cells),
        _unsteady(cells),
    ]
    return [text for text in said if text]


def _limits(limits) -> list[str]:
    """One sentence a device; a launch takes the same time in every precision."""
    said = []
    for device, rows in limits.groupby("device", sort=False):
        rates = [
            f"{_rate(row.matrix_flops_per_second, 'FLOP/s')} in {row.precision}{_vendor(row)}"
            for row in rows.itertuples()
        ]
        first = rows.iloc[0]
        vendor = first["vendor_bytes_per_second"]
        peak = "" if show.absent(vendor) else f"; vendor: {_rate(vendor, 'B/s')}"
        said.append(
            f"{device} multiplies large matrices at {show.listed(rates)}, and copies "
            f"{_rate(first['copy_bytes_per_second'], 'B/s')} (read and written{peak}); its "
            f"smallest operation takes {show.duration(first['launch_seconds'])}."
        )
    return said


def _rate(value, unit: str) -> str:
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= scale:
            return f"{show.digits(value / scale)} {prefix}{unit}"
    return f"{show.digits(value)} {unit}"


def _vendor(row) -> str:
    if show.absent(row.vendor_flops_per_second):
        return ""
    return f" (vendor, dense: {_rate(row.vendor_flops_per_second, 'FLOP/s')})"


def _reached(cells) -> str:
    """Of the largest model, for one reader, in the way that reaches most."""
    cells = cells.dropna(subset=["roofline_share", "parameters_all"])
    cells = cells[cells["parameters_all"] == cells["parameters_all"].max()]
    parts = []
    for phase, share, name in (("prefill", "mfu", "MFU"), ("decode", "mbu", "MBU")):
        rows = ways.corner(cells, phase).dropna(subset=[share])
        if len(rows):
            row = rows.loc[rows["roofline_share"].idxmax()]
            way = ways.name((row["engine"], row["precision"]))
            parts.append(
                f"{phase} at batch {row['batch']:.0f}, context {row['context']:.0f} reaches "
                f"{show.percent(row[share])} {name} ({way}), "
                f"{show.percent(row['roofline_share'])} of the roofline, which is set by "
                f"{row['limited_by']}"
            )
    return f"The largest model, {cells['model'].iloc[0]}: {'; '.join(parts)}." if parts else ""


def _not_held_against(cells, limits) -> str:
    """Where a CPU's limits are of other threads than its probes: why MFU and MBU are missing."""
    timed = cells[(cells["device_kind"] == "cpu") & cells["flops"].notna()]
    timed = timed.dropna(subset=["median_seconds"])
    timed = timed[timed["mfu"].isna() & timed["device"].isin(limits["device"])]
    known = limits[limits["device"].isin(timed["device"])]
    threads = [sorted(each["threads"].dropna().unique()) for each in (timed, known)]
    if not all(threads) or set(threads[0]) <= set(threads[1]):
        return ""
    probed, measured = (
        f"{show.listed(map(show.exact, found))} {'thread' if found == [1] else 'threads'}"
        for found in threads
    )
    return (
        f"{show.plural(len(timed), 'cell')} of {probed} "
        f"{'has' if len(timed) == 1 else 'have'} no MFU and no MBU: the limits of this device were "
        f"measured with {measured}. Delete their record, and they are measured with as many."
    )


def _energy(cells) -> str:
    cells = cells[cells["phase"] != "load"]
    lacking = cells[cells["joules_per_token"].isna()]
    reasons = "; ".join(sorted(lacking["energy_missing"].dropna().unique()))
    if not reasons:
        return ""
    if len(lacking) == len(cells):
        return f"Energy was not measured: {reasons}."
    return f"Of {len(lacking)} of {show.plural(len(cells), 'cell')} there is no energy: {reasons}."


def _remarks(cells) -> str:
    """What a probe says of cells that it measured all the same."""
    timed = cells.dropna(subset=["median_seconds", "reason"])
    found = timed.groupby("reason", sort=False).size()
    said = "; ".join(f"{show.plural(count, 'cell')}: {reason}" for reason, count in found.items())
    return f"Measured with a remark: {said}." if said else ""


def _timed(cells, flag: str) -> str:
    """How many of the timed cells are flagged; nothing where none is."""
    timed = cells.dropna(subset=["median_seconds"])
    flagged = int(timed[flag].fillna(False).astype(bool).sum())
    return f"{flagged} of {show.plural(len(timed), 'cell')}" if flagged else ""


def _busy(cells) -> str:
    disturbed = _timed(cells, "busy")
    return disturbed and (
        f"Other programs were running while {disturbed} were timed, which makes their times longer "
        "than the model’s own; their status is “ok, busy”, and in figures they are hollow marks."
    )


def _unsteady(cells) -> str:
    unsteady = _timed(cells, "rounds_differ")
    return unsteady and (
        f"In {unsteady} the rounds of repeats lie further apart than the repeats of a round: the "
        "machine’s own speed changed while they were timed, and may be another at the next probe, "
        "so their intervals span the repeats."
    )
