"""Quality against cost with the Pareto front: the picture that a choice of model is made from."""

from __future__ import annotations

from collections.abc import Iterator

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.words import scores, show, tradeoff, ways

MOST_SCORES = 6  # small figures; the table of tradeoffs has every score
_NAMES = {"seconds": "time", "bytes": "memory", "joules": "energy"}
_SPOKEN = {"seconds": "time per token", "bytes": "memory", "joules": "energy per token"}


def main(tables, section: str) -> Iterator[Figure]:
    """The quality that compares most models, against each cost that was measured."""
    costs = tradeoff.costs(tables)
    for quality in tradeoff.qualities(tables)[:1]:
        for cost in tradeoff.COSTS:
            yield from _figure(quality, costs, cost, section)


def others(tables, section: str) -> Iterator[Figure]:
    """Every other quality against time."""
    costs = tradeoff.costs(tables)
    for quality in tradeoff.qualities(tables)[1 : 1 + MOST_SCORES]:
        yield from _figure(quality, costs, "seconds", section)


def _figure(quality: tradeoff.Quality, costs, cost: str, section: str) -> Iterator[Figure]:
    points = tradeoff.points(quality, costs, cost)
    if points["model"].nunique() < 2:
        return
    figure, ax = drawing.axes()
    models = list(points.sort_values("parameters_without_embeddings")["model"].unique())
    colours = drawing.shades(models)
    found = ways.found(points)
    ends = scores.bounds(quality.about["metric"], points["value"])
    _front(ax, points[points["front"]].sort_values(cost), cost)
    for way, marker in drawing.marks(found).items():
        for each in ways.of(points, way).itertuples():
            _point(ax, each, cost, colours[each.model], marker, ends)
        if len(found) > 1:
            ax.plot([], [], marker, color=drawing.SOFT, label="\n".join(way))
    if (points["origin"] == "pretrained").any():
        ax.plot([], [], "o", mfc="white", mec=drawing.INK, mew=1.4, label="trained\nelsewhere")
    _label(ax, points[points["front"]], cost, quality.lower_is_better)
    drawing.finish(
        figure,
        ax,
        x=tradeoff.COSTS[cost] + ("" if cost == "bytes" else ", decoding"),
        y=quality.axis,
        legend="",
        y_scale="linear",
    )
    drawing.bounded(ax, *ends)
    if cost == "seconds":
        _price(ax, points)
    name = f"tradeoff-{_NAMES[cost]}"
    name += "" if quality.name == "loss" else f"-{_safe(quality.name)}"
    title = f"{quality.title} against {_SPOKEN[cost]}"
    yield Figure(name, section, title, _caption(points, costs, cost), figure)


def _point(ax, each, cost: str, colour, marker: str, ends: tuple[float, float]) -> None:
    """Off the front small and pale; loaded models with a dark edge; busy ones hollow."""
    edge = drawing.INK if each.origin == "pretrained" else colour if each.front else "white"
    hollow = show.holds(each.busy)
    look = {"color": colour, "mec": edge, "mew": 1.2 if each.front else 0.6}
    look |= {"ms": 8, "zorder": 4} if each.front else {"ms": 5, "alpha": 0.55, "zorder": 3}
    if hollow:
        look |= {"mfc": "white", "mec": drawing.INK if each.origin == "pretrained" else colour}
    bar = None
    if each.error == each.error:
        reach = scores.WIDTH * each.error
        bar = [[min(reach, each.value - ends[0])], [min(reach, ends[1] - each.value)]]
    ax.errorbar(getattr(each, cost), each.value, yerr=bar, fmt=marker, elinewidth=0.9, **look)


def _front(ax, rows, cost: str) -> None:
    """Steps: between two points of the front one has to take the cheaper."""
    ax.step(
        rows[cost],
        rows["value"],
        where="post",
        label="Pareto\nfront",
        zorder=2,
        **drawing.REFERENCE,
    )


def _label(ax, rows, cost: str, lower: bool) -> None:
    """Names beside the points of the front, on the side where nothing can lie."""
    for each in rows.drop_duplicates(["model", cost]).itertuples():
        name = ax.annotate(
            each.model,
            (getattr(each, cost), each.value),
            xytext=(-6, -11 if lower else 6),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color=drawing.INK,
        )
        name.set_in_layout(False)
    ax.margins(0.15, 0.14)


def _price(ax, points) -> None:
    """Money is time times a price: a second scale of the same axis."""
    prices = points.dropna(subset=["price_per_million_tokens"])
    if not len(prices):
        return
    first = prices.iloc[0]
    factor = float(first["price_per_million_tokens"] / first["seconds"])
    if factor <= 0:
        return
    second = ax.secondary_xaxis(
        "top", functions=(lambda value: value * factor, lambda price: price / factor)
    )
    second.set_xlabel("Price per million tokens")
    drawing.scale(second.xaxis, "log")


def _caption(points, costs, cost: str) -> str:
    on, models = points[points["front"]]["model"].nunique(), points["model"].nunique()
    reader = ways.corner(costs)
    said = (
        f"Decoding at batch {reader['batch'].iloc[0]:.0f}, context "
        f"{reader['context'].iloc[0]:.0f}. {on} of {show.plural(models, 'model')} "
        f"{'lies' if on == 1 else 'lie'} on the Pareto front (large marks, named): nothing "
        "measured here is as good for less, or better for as much. "
    )
    if (points.groupby("model")["budget"].nunique() > 1).any():
        said += "Each training budget of a size is a mark. "
    if cost == "seconds" and points["price_per_million_tokens"].notna().any():
        said += "The price is that of a device-hour in the configuration. "
    if points["error"].notna().any():
        said += f"Bars are ±{scores.WIDTH} standard errors. "
    if len(ways.found(points)) > 1:
        said += "Quality is that of the model as it was trained or scored, in all precisions. "
    if ways.busy(points):
        said += "Hollow marks: other programs were running on the device."
    return said.strip()


def _safe(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in text)
