"""Every task's score against size, with its error bars and its chance level.

Beside a score that counts right answers stands the smooth one of the same items, which moves first;
all other metrics are in the tables.
"""

from __future__ import annotations

from collections.abc import Iterator

from llama_bench.derive.figures import drawing
from llama_bench.derive.figures.drawing import Figure
from llama_bench.derive.tables import main_metric
from llama_bench.derive.words import scores, show

# a metric that is drawn in the figure of another one of the same task: the same answers, scored
# in two ways
BESIDE = {"acc_norm": "acc"}


def draw(tables, fits) -> Iterator[Figure]:
    told = scores.told(tables).dropna(subset=["parameters_without_embeddings"])
    about = dict(zip(tables["tasks"]["task"], tables["tasks"]["description"], strict=True))
    own, screen = scores.own_metrics(tables), _screened(tables["screen"])
    several, called = told["suite"].nunique() > 1, scores.namer(told)
    alone = []  # a task of one figure comes after those of two, which stand side by side
    for (suite, task, filter), rows in told.groupby(["suite", "task", "filter"], dropna=False):
        main = main_metric.of(rows["metric"], own.get(task))
        drawn = [metric for metric in (main, scores.companion(rows["metric"], main)) if metric]
        figures = [
            _figure(
                rows[rows["metric"].isin([metric, *_besides(metric)])],
                (suite, task, metric, filter),
                scores.title(called(suite, task, filter), metric),
                about.get(task) if metric == main else None,
                several,
                screen.get((suite, task, metric, filter)),
                task in about,
            )
            for metric in drawn
        ]
        alone += figures if len(figures) == 1 else []
        yield from figures if len(figures) > 1 else []
    yield from alone


def _besides(metric: str) -> list[str]:
    return [second for second, first in BESIDE.items() if first == metric]


def _screened(screen) -> dict[tuple, dict]:
    """What the screen says of the sizes, by its task metric."""
    rows = screen[screen["over"] == "sizes"].to_dict("records")
    return {tuple(row[key] for key in scores.KEYS): row for row in rows}


def _figure(rows, key, title, description, several_suites, screened, held_out) -> Figure:
    """`held_out`: whether the verb `tasks` wrote the task."""
    suite, task, metric, filter = key
    figure, ax = drawing.axes()
    second = rows[rows["metric"] != metric]
    _scores(ax, rows[rows["metric"] == metric])
    if len(second):
        _scores(ax, second, second=True)
        normalised = {"color": drawing.SOFT, "ls": ":", "marker": "o", "mfc": "white"}
        ax.plot([], [], **normalised, ms=5.5, label="length-\nnormalised")
    chance = rows["chance"].dropna()
    if len(chance) and _near(ax, chance.iloc[0]):
        ax.axhline(chance.iloc[0], color=drawing.SOFT, ls=(0, (4, 3)), lw=1, label="chance")
    better = "higher" if bool(rows["higher_is_better"].iloc[0]) else "lower"
    legend = "Training\ntokens" if (rows["origin"] == "trained").any() else "Model"
    drawing.finish(
        figure,
        ax,
        x=drawing.PARAMETERS,
        y=f"{scores.axis_name(metric)} ({better} is better)",
        legend=legend,
        y_scale="linear",
    )
    drawing.bounded(ax, *scores.bounds(metric, rows["value"]))
    parts = [part for part in (suite if several_suites else "", task, metric) if part]
    parts += [] if filter in ("none", None) or filter != filter else [filter]
    return Figure(
        "score-" + "-".join(_safe(part) for part in [str(suite), *parts[-3:]]),
        "tasks",
        title,
        " ".join([_caption(ax, rows, description, chance, held_out), *_noise(screened)]),
        figure,
    )


def _noise(screened) -> list[str]:
    """That the sizes cannot be told apart, where they cannot."""
    if not screened or show.absent(screened["told_apart"]) or screened["told_apart"]:
        return []
    return [f"{scores.BLURRED} At this scale the sizes cannot be told apart by it."]


def _scores(ax, rows, second: bool = False) -> None:
    """Trained models as lines, others as marks of their own; `second`: dotted, hollow, unnamed."""
    _trained(ax, rows[rows["origin"] == "trained"], second)
    loaded = rows[rows["origin"] == "pretrained"]
    models = list(loaded.sort_values("parameters_without_embeddings")["model"].unique())
    for place, model in enumerate(models):
        mark = drawing.FOREIGN_MARKERS[place % len(drawing.FOREIGN_MARKERS)]
        mine = loaded[loaded["model"] == model]
        _points(ax, mine, 1.0, drawing.INK, mark, model, "none", size=10, second=second)


def _near(ax, chance: float) -> bool:
    """Whether a line at `chance` leaves the scores at least half of the axis."""
    low, high = ax.get_ylim()
    return low - (high - low) < chance < high + (high - low)


def _safe(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in text)


def _trained(ax, rows, second: bool) -> None:
    budgets = sorted(rows["budget"].dropna().unique())
    colours, shapes = drawing.shades(budgets, of="budget"), drawing.marks(budgets)
    for place, budget in enumerate(budgets):
        # a nudge sideways, the same on every figure, keeps error bars of budgets apart
        nudge = 1.03 ** (place - (len(budgets) - 1) / 2)
        _points(
            ax,
            rows[rows["budget"] == budget],
            nudge,
            colours[budget],
            shapes[budget],
            show.short(budget),
            ":" if second else "-",
            second=second,
        )


def _points(ax, rows, nudge, colour, marker, label, line, size=5.5, second=False) -> None:
    """Means over seeds with error bars; where there are seeds, each as a small dot too."""
    means = rows.groupby("parameters_without_embeddings").agg(
        metric=("metric", "first"),
        value=("value", "mean"),
        error=("standard_error", "mean"),
        items=("items", "mean"),
        seeds=("value", "size"),
    )
    x = means.index.to_numpy(float) * nudge
    bars = scores.bars(means)
    ax.errorbar(
        x,
        means["value"],
        yerr=bars if bars.any() else None,
        color=colour,
        marker=marker,
        ls=line,
        label=None if second else label,
        elinewidth=1,
        ms=size,
        mfc="white" if second else colour,
        mec=colour if second else "white",
        mew=0.6,
    )
    if (means["seeds"] > 1).any():
        ax.plot(
            rows["parameters_without_embeddings"] * nudge,
            rows["value"],
            ".",
            color=colour,
            ms=3,
            alpha=0.7,
        )


def _caption(ax, rows, description, chance, held_out) -> str:
    parts = []
    if description is not None and description == description:
        parts.append(f"{description[0].upper()}{description[1:].rstrip('.')}.")
    items = rows["items"].dropna()
    if len(items):
        parts.append(f"{show.exact(items.max())} item{'s' if items.max() > 1 else ''}.")
    if rows["metric"].isin(scores.COUNTED).any():
        parts.append("Bars are 95 % intervals over items (Wilson's).")
    elif rows["standard_error"].notna().any():
        parts.append(f"Bars are ±{scores.WIDTH} standard errors (95 %) over items.")
    if (rows.groupby(["model", "budget", "metric"]).size() > 1).any():
        parts.append("Lines go through the mean over seeds; each seed is a dot.")
    if rows["metric"].nunique() > 1:
        parts.append("Dotted, hollow: each answer's likelihood divided by its length first.")
    if len(chance):
        level, what = f"{chance.iloc[0]:.3g}", scores.chance_means(rows["metric"], held_out)
        drawn = _near(ax, chance.iloc[0])
        parts.append(
            f"The dashed line is chance, {level}: {what}."
            if drawn
            else f"Chance is {level}, off this axis: {what}."
        )
    if (rows["origin"] == "pretrained").any():
        parts.append("Dark marks are models trained elsewhere.")
    return " ".join(parts)
