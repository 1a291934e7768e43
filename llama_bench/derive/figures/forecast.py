"""How far the held-out runs came out from what was foretold of them, against its intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.words import ledgertext, show

THICKEST, STEP = 9.0, 3.2  # points: of the narrowest interval's bar, and less for each wider one
NUDGE = 1.05  # sideways, so that the bars of two models or budgets do not hide each other
AXES = {"params": drawing.PARAMETERS, "tokens": "Training tokens"}


def draw(tables, fits) -> Iterator[Figure]:
    ledger = ledgertext.points(tables["forecasts"])
    drawn = _drawn(ledger)
    if not drawn:
        return
    x, by = ("tokens", "params")
    if len({point["params"] for point in drawn}) > len({point["tokens"] for point in drawn}):
        x, by = by, x
    levels = sorted({point[by] for point in drawn})
    known = sorted({*tables["ladder"][by], *levels})  # the colours of the other figures
    colours = drawing.shades(known, of="size" if by == "params" else "budget")
    figure, ax = drawing.axes()
    ax.axhline(0, **drawing.REFERENCE)
    for place, level in enumerate(levels):
        mine = [point for point in drawn if point[by] == level]
        name = mine[0]["model"] if by == "params" else f"{show.short(level)} tokens"
        nudge = NUDGE ** (place - (len(levels) - 1) / 2)
        _bars(ax, mine, x, nudge, colours[level], f"{name}, forecast")
        _losses(ax, mine, x, nudge, "measured" if place == len(levels) - 1 else None)
    ax.margins(x=0.15)
    ticks = {point[x] for point in drawn}
    look = {"y_scale": "linear", "legend": "Held out", "x_ticks": ticks}
    drawing.finish(figure, ax, x=AXES[x], y="Loss against its forecast (%)", **look)
    caption = _caption(drawn, ledger)
    yield Figure("forecasts", "forecasts", "Forecast and measured", caption, figure)


def _drawn(ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest true forecast of each run; of a fit that did not converge there is none."""
    found: dict[str, dict[str, Any]] = {}
    for point in ledger:
        if point["state"] in ("scored", "waiting", "lost") and point["status"] == "converged":
            found.setdefault(point["run"], point)
    return list(found.values())


def _off(loss: float, point: dict[str, Any]) -> float:
    return 100 * (loss / point["point"] - 1)


def _bars(ax, drawn: list[dict[str, Any]], x: str, nudge: float, colour, name: str) -> None:
    """A bar for each interval about the forecast; one that reaches infinity has no end to draw."""
    for point in drawn:
        for place, entry in enumerate(point["intervals"].values()):
            ends = [_off(entry[end], point) for end in ("low", "high")]
            width = max(1.5, THICKEST - STEP * place)
            ax.vlines(point[x] * nudge, *ends, color=colour, lw=width, zorder=2)
    ax.plot([], [], color=colour, lw=THICKEST - STEP, label=name)


def _losses(ax, drawn: list[dict[str, Any]], x: str, nudge: float, name: str | None) -> None:
    measured = [point for point in drawn if not show.absent(point["loss"])]
    places = [point[x] * nudge for point in measured]
    losses = [_off(point["loss"], point) for point in measured]
    look = {"ms": 7, "mec": "white", "mew": 1, "zorder": 3, "label": name if measured else None}
    ax.plot(places, losses, "D", color=drawing.INK, **look)


def _caption(drawn: list[dict[str, Any]], ledger: list[dict[str, Any]]) -> str:
    levels = show.listed(show.percent(level) for level in drawn[0]["intervals"])
    text = (
        "The dashed line is what was forecast before the run, bars are its "
        f"{levels} intervals for a single run, from thick to thin. Diamonds are the losses then "
        "measured: above the line the run came out worse than forecast."
    )
    without = len({point["run"] for point in ledger}) - len(drawn)
    if without:
        text += f" Not drawn: {show.plural(without, 'run')} without a forecast that counts."
    return text
