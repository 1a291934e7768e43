"""Which probed cells stand in one figure as one series, and how a series looks.

With one engine and one precision, each batch and context is a series; with several, each of these
is one, at the cell of one reader, and other batches have figures of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn as sns

from llama_bench.derive.figures import drawing
from llama_bench.derive.words import show, ways

SIZE = "parameters_without_embeddings"
MOST = 6  # series; of more batches and contexts the extreme ones are drawn


@dataclass(frozen=True)
class Series:
    """Cells of one phase, a row per model."""

    label: str
    rows: Any
    colour: Any
    marker: str


def measured(tables):
    """The cells that have times, and sizes to hold them against."""
    cells = tables["cells"]
    return cells.dropna(subset=["median_seconds", SIZE])


def series(rows) -> tuple[str, list[Series]]:
    """(what the legend is headed with, the series) of one phase's cells."""
    found = ways.found(rows)
    if len(found) < 2:
        return "Batch ×\ncontext", _places(rows)
    colours = sns.color_palette("colorblind", len(found))
    marks = drawing.marks(found)
    corner = ways.corner(rows, rows["phase"].iloc[0])
    return "Engine,\nprecision", [
        Series("\n".join(way), ways.of(corner, way), colour, marks[way])
        for way, colour in zip(found, colours, strict=True)
    ]


def _places(rows) -> list[Series]:
    contexts, batches = ([*map(int, sorted(rows[key].unique()))] for key in ("context", "batch"))
    if len(contexts) * len(batches) > MOST:
        contexts, batches = [*dict.fromkeys((contexts[0], contexts[-1]))], [batches[0], batches[-1]]
    colours, marks = drawing.shades(contexts, of="context"), drawing.marks(batches)
    found = []
    for context in contexts:
        for batch in dict.fromkeys(batches):
            mine = rows[(rows["context"] == context) & (rows["batch"] == batch)]
            if len(mine):
                found.append(Series(f"{batch} × {context}", mine, colours[context], marks[batch]))
    return found


def draw(ax, each: Series, x: str, y: str, bars=None) -> None:
    """A line through the study's own models; loaded ones are marks of their own, and what was
    measured beside other programs is hollow. `bars` are the names of lower and upper end."""
    rows = each.rows.sort_values(x)
    own = rows[rows["origin"] != "pretrained"]
    ax.plot(own[x], own[y], color=each.colour)
    kinds = {"trained": (each.marker, 5.5, "white"), "pretrained": ("*", 10, drawing.INK)}
    for origin, (marker, size, edge) in kinds.items():
        mine = rows[(rows["origin"] == "pretrained") == (origin == "pretrained")]
        hollow = mine["busy"].fillna(False).to_numpy(bool)
        for rest, part in ((False, mine[~hollow]), (True, mine[hollow])):
            look = {"mfc": "white", "mec": each.colour, "mew": 1.2} if rest else {"mec": edge}
            look = {"mew": 0.6, "color": each.colour, "ms": size} | look
            ax.plot(part[x], part[y], marker, **look)
    shown = (each.marker, "-", "white") if len(own) else ("*", "none", drawing.INK)
    look = dict(zip(("marker", "ls", "mec"), shown, strict=True))
    ax.plot([], [], color=each.colour, mew=0.6, label=each.label, **look)
    if bars and len(rows.dropna(subset=bars)):
        low, high = (np.abs(rows[y] - rows[end]).fillna(0) for end in bars)
        ax.errorbar(rows[x], rows[y], yerr=[low, high], ls="none", color=each.colour, elinewidth=1)


def notes(rows) -> str:
    """What all captions of such figures say where it holds: device, loaded models, busy cells."""
    said = f" On {show.listed(sorted(rows['device'].dropna().unique()))}."
    if (rows["origin"] == "pretrained").any():
        said += " Stars are models trained elsewhere."
    if ways.busy(rows):
        said += " Hollow marks: other programs were running on the device."
    return said


def way_note(rows) -> str:
    """Which cell is drawn where a series is a way of probing."""
    corner = ways.corner(rows, rows["phase"].iloc[0])
    batch, context = corner["batch"].iloc[0], corner["context"].iloc[0]
    return f" Batch {batch:.0f}, context {context:.0f}." if len(ways.found(rows)) > 1 else ""
