"""How every figure of a report looks, and how it becomes the same bytes from the same tables.

Colour is ordered where what it shows is ordered: one sequential palette for sizes, another for
budgets and contexts, both monotone in lightness, so that they survive grey print and every kind
of colour blindness; each level has its own marker besides. Models trained elsewhere are dark,
with marks of their own. Text stays text in the SVG: it can be searched, and read at any zoom.
"""

from __future__ import annotations

import html
import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib import ticker

from llama_bench.derive.words import show

SIZE = (5.0, 3.6)  # inches: two stand side by side in the report, one fills a phone
INK, SOFT, GRID = "#22262b", "#6b7480", "#e4e7eb"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
FOREIGN_MARKERS = ("*", "P", "X", "d", "p", "8")
REFERENCE = {"color": SOFT, "lw": 1, "ls": (0, (4, 3))}  # a line that is no model
LAST = (
    "length-\nnormalised",
    "chance",
    "weights alone",
    "trunk",
    "averaged\ntrunk",
    "frozen\nfeatures",
    "from zero",
)  # what is no model stands at the end of a legend
PARAMETERS = "Parameters without embeddings"

_STYLE = {
    "svg.hashsalt": "llama_bench",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Figure:
    """A drawn figure and what is said of it. `section` is the report's: loss, law,
    forecasts, data, tasks, task-details, finetuning and one per
    fine-tuning, fusion, cost, cost-details."""

    name: str
    section: str
    title: str
    caption: str
    canvas: Any

    def entry(self) -> dict[str, str]:
        return {
            "name": self.name,
            "file": f"{self.name}.svg",
            "title": self.title,
            "caption": self.caption,
            "section": self.section,
        }

    def svg(self) -> str:
        """The figure as SVG text, with its title and caption for screen readers; closes it."""
        buffer = io.StringIO()
        self.canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(self.canvas)
        text = buffer.getvalue()
        spoken = (
            f'<title id="{self.name}-title">{html.escape(self.title)}</title>'
            f'<desc id="{self.name}-desc">{html.escape(self.caption)}</desc>'
        )
        label = f' role="img" aria-labelledby="{self.name}-title {self.name}-desc"'
        return re.sub(r"(<svg\b[^>]*)>", lambda match: f"{match[1]}{label}>{spoken}", text, count=1)


def style():
    """The context in which all figures are drawn and saved."""
    sns.set_theme(style="ticks", context="paper")
    return plt.rc_context(_STYLE)


def axes():
    figure, ax = plt.subplots(figsize=SIZE)
    return figure, ax


def shades(levels: list, of: str = "size") -> dict[Any, Any]:
    """level -> colour, light to dark in the order given; sizes and everything else differ."""
    name = "crest" if of == "size" else "flare"
    return dict(zip(levels, sns.color_palette(name, len(levels)), strict=True))


def marks(levels: list) -> dict[Any, str]:
    return {level: MARKERS[place % len(MARKERS)] for place, level in enumerate(levels)}


def finish(figure, ax, *, x: str, y: str, legend=None, x_scale="log", y_scale="log", x_ticks=()):
    """Labels, scales and their ticks; the legend stands beside the axes, where no point can be.

    `x_ticks` are the levels that were measured, shown as they are where they are few.
    """
    ax.set(xlabel=x, ylabel=y)
    scale(ax.xaxis, x_scale)
    scale(ax.yaxis, y_scale)
    if 1 <= len(x_ticks) <= 6:
        ax.xaxis.set_major_locator(ticker.FixedLocator(sorted(x_ticks)))
    sns.despine(ax=ax)
    ax.set_axisbelow(True)
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: labels[place] in LAST)
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    if ax.get_legend():
        ax.get_legend().remove()
    if legend is not None and handles:
        figure.legend(
            handles,
            labels,
            title=legend,
            loc="outside right upper",
            alignment="left",
            handlelength=1.6,
            borderaxespad=0.2,
            labelspacing=0.45,
        )


def finish_bars(figure, ax, *, x: str, y: str, legend: str) -> None:
    """As `finish`, of bars that stand on zero at places with names of their own."""
    names, places = [text.get_text() for text in ax.get_xticklabels()], ax.get_xticks()
    finish(figure, ax, x=x, y=y, legend=legend, x_scale="linear", y_scale="linear")
    ax.set_xticks(places, names)
    ax.grid(False, axis="x")


def bounded(ax, low: float, high: float) -> None:
    """Ends a finished axis of y where its numbers must; marks that lie on that end stay whole."""
    bottom, top = ax.get_ylim()
    if low <= bottom and top <= high:
        return
    for line in ax.lines:
        line.set_clip_on(False)
    ax.set_ylim(max(bottom, low), min(top, high))


def scale(axis, kind: str) -> None:
    """Linear or logarithmic, with ticks that people write: 100k, 200k, 500k, 1M."""
    if kind == "log":
        axis._set_axes_scale("log")
        low, high = axis.get_view_interval()
        axis.set_major_locator(_locator(low, high))
        axis.set_minor_locator(ticker.NullLocator())
    else:
        axis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(ticker.FuncFormatter(_tick))


def _locator(low: float, high: float):
    """Ticks of a logarithmic axis: about five, at round numbers, whatever it spans."""
    if low <= 0 or high / low < 3:
        return ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
    if high / low < 30:
        return ticker.LogLocator(subs=(1, 2, 5))
    if high / low < 1000:
        return ticker.LogLocator(subs=(1, 3))
    return ticker.LogLocator(numticks=7)


def _tick(value: float, _place) -> str:
    if abs(value) >= 1e9 or 0 < abs(value) < 1e-3:
        return show.power(value)
    return show.short(value)
