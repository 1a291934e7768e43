"""Loss against what it costs: parameters, tokens, floating-point operations, time in training."""

from __future__ import annotations

from collections.abc import Iterator

import seaborn as sns

from llama_bench.derive import drawing, show
from llama_bench.derive.drawing import Figure
from llama_bench.derive.figures.law import isolines

LOSS = "Held-out loss (nats per token)"


def draw(tables, fits) -> Iterator[Figure]:
    ladder = tables["ladder"]
    if len(ladder):
        yield from _against_parameters(ladder)
        yield from _against_tokens(ladder)
        yield _against_flops(ladder, fits)
    yield from _curves(tables["curves"])


def by_size(frame, column: str) -> list[str]:
    """The models of `frame`, smallest first."""
    return list(frame.sort_values([column, "model"], kind="stable")["model"].unique())


def budgets(frame) -> list[float]:
    return sorted(frame["budget"].dropna().unique())


def _seeds(frame, within: list[str]) -> str:
    """How the caption speaks of seeds, where there are several."""
    count = int(frame.groupby(within).size().max())
    if count < 2:
        return ""
    return f" Points are means over up to {count} seeds, bars reach from the lowest to the highest."


def _against_parameters(ladder) -> Iterator[Figure]:
    if ladder["params"].nunique() < 2:
        return
    levels = [show.short(budget) for budget in budgets(ladder)]
    frame = ladder.assign(level=ladder["budget"].map(show.short))
    figure, ax = drawing.axes()
    _lines(ax, frame, "params", levels, drawing.shades(levels, of="budget"))
    drawing.finish(figure, ax, x=drawing.PARAMETERS, y=LOSS, legend="Training\ntokens")
    yield Figure(
        "loss-parameters", "loss", "Loss against size",
        f"Mean loss on held-out text; one line per training budget ({show.listed(levels)} tokens); "
        "both axes logarithmic." + _seeds(ladder, ["model", "budget"]),
        figure,
    )  # fmt: skip


def _against_tokens(ladder) -> Iterator[Figure]:
    if ladder["tokens"].nunique() < 2:
        return
    levels = by_size(ladder, "params")
    figure, ax = drawing.axes()
    _lines(ax, ladder.assign(level=ladder["model"]), "tokens", levels, drawing.shades(levels))
    drawing.finish(figure, ax, x="Training tokens", y=LOSS, legend="Model",
                   x_ticks=_apart(ladder["tokens"]))  # fmt: skip
    yield Figure(
        "loss-tokens", "loss", "Loss against training tokens",
        "The same runs, one line per size; both axes logarithmic."
        + _seeds(ladder, ["model", "budget"]),
        figure,
    )  # fmt: skip


def _apart(values) -> list[float]:
    """The levels themselves, where no two are so close that their labels would touch."""
    levels = sorted(values.unique())
    close = any(b < 1.25 * a for a, b in zip(levels, levels[1:], strict=False))
    return [] if close else levels


def _lines(ax, frame, x: str, levels: list[str], colours) -> None:
    sns.lineplot(
        frame, x=x, y="loss", ax=ax, hue="level", hue_order=levels, palette=colours,
        style="level", style_order=levels, markers=drawing.marks(levels), dashes=False,
        errorbar=("pi", 100), err_style="bars", markeredgecolor="white", markeredgewidth=0.6,
    )  # fmt: skip


def _against_flops(ladder, fits) -> Figure:
    levels = by_size(ladder, "params")
    colours = drawing.shades(levels)
    figure, ax = drawing.axes()
    note = isolines(ax, ladder, fits, colours)
    sns.scatterplot(
        ladder, x="flops", y="loss", ax=ax, hue="model", hue_order=levels, palette=colours,
        style="model", style_order=levels, markers=drawing.marks(levels), s=36,
        edgecolor="white", linewidth=0.6, zorder=3,
    )  # fmt: skip
    drawing.finish(figure, ax, x="Training FLOPs", y=LOSS, legend="Model")
    return Figure(
        "loss-flops", "loss", "Loss against training compute",
        f"All {show.plural(len(ladder), 'run')}; FLOPs counted exactly, with the output head and "
        f"causal attention. {note}".strip(),
        figure,
    )  # fmt: skip


def _curves(curves) -> Iterator[Figure]:
    """One curve per size: its longest run; of several seeds the first."""
    curves = curves.dropna(subset=["tokens"])
    column = "validation_loss" if curves["validation_loss"].notna().any() else "train_loss"
    curves = curves.dropna(subset=[column])
    if not len(curves):
        return
    longest = curves.sort_values(["budget", "seed"], ascending=[False, True], kind="stable")
    longest = longest.groupby("model", sort=False)["run"].first()
    levels = by_size(curves, "parameters_without_embeddings")
    colours = drawing.shades(levels)
    figure, ax = drawing.axes()
    for run, line in curves.groupby("run", sort=False):
        model, chosen = line["model"].iloc[0], run in set(longest)
        line = line.sort_values("tokens")
        ax.plot(line["tokens"], line[column], color=colours[model], lw=1.6 if chosen else 0.7,
                alpha=1 if chosen else 0.55, marker="." if len(line) < 3 else "",
                label=model if chosen else None)  # fmt: skip
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    for line in list(handles.values()):
        line.set_label(f"_{line.get_label()}")
    for level in [level for level in levels if level in handles]:
        ax.plot([], [], color=colours[level], label=level)
    what = "Held-out loss" if column == "validation_loss" else "Training loss"
    drawing.finish(figure, ax, x="Tokens seen", y=f"{what} (nats per token)", legend="Model",
                   x_scale="linear")  # fmt: skip
    yield Figure(
        "training-curves", "loss", "Loss while training",
        f"{what} after the tokens seen so far; the longest run of each size is drawn thick, its "
        "shorter budgets and further seeds thin.",
        figure,
    )  # fmt: skip
