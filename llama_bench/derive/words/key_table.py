"""One row per model: what it is, what it reached, what it costs. The report's key table."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llama_bench.derive.words import scores, show, ways

MOST_SCORES = 8  # columns; every score stands in the table of scores
_UNITS = {"bits_per_byte": "test files"}


Cell = tuple[str, str]  # a number, and what stands small under it


class Measured(NamedTuple):
    """A number with its error, if it has one: shown with as many places as others of its column."""

    value: float
    error: float | None


def key_table(tables) -> tuple[list[dict[str, str]], list[list[Cell]]]:
    """(columns, rows) of shown text. A column is {"name", "unit"}; trained models come first.

    A trained model is shown at its largest budget that has a result, as the mean over seeds. A
    model without any result has a row all the same, with its status behind the name.
    """
    # cost before scores: of many tasks some lie beyond the page
    measured = [*_probe_columns(tables), *_score_columns(tables)]
    names = [
        ("Model", ""),
        ("Parameters", "no embeddings; all"),
        ("Tokens", "trained on"),
        ("FLOPs", "training"),
        ("Loss", f"nats/token{', ± between seeds' if seeded(tables) else ''}"),
        ("Bits/byte", "validation"),
        ("MFU", "training"),
    ]
    columns = [{"name": name, "unit": unit} for name, unit in names]
    columns += [column for column, _ in measured]
    rows = []
    for model in models(tables):
        training = _training(tables["trainings"], model)
        row = [_named(tables, model), *_trained(tables, model, training)]
        rows.append(row + [value(model, training) for _, value in measured])
    rows = [list(row) for row in zip(*map(_even, zip(*rows, strict=True)), strict=True)]
    kept = [
        place
        for place in range(len(columns))
        if place == 0 or any(row[place][0] != show.NOTHING for row in rows)
    ]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def models(tables) -> list[str]:
    """Every model of the study: trained ones first, smallest first."""
    known = tables["runs"].dropna(subset=["model"])
    origins: dict[str, Any] = {}
    for model, origin in zip(known["model"], known["origin"], strict=True):
        if model not in origins or show.absent(origins[model]):
            origins[model] = origin

    def place(model):
        return origins[model] == "pretrained", size_of(tables, model) or float("inf")

    return sorted(origins, key=place)


def size_of(tables, model: str, way: str = "parameters_without_embeddings") -> float | None:
    """Parameters of a model as its records say; None where none does."""
    for name in ("trainings", "scores", "memory"):
        table = tables[name]
        known = table.loc[table["model"] == model, way].dropna()
        if len(known):
            return float(known.iloc[0])
    return None


def _named(tables, model: str) -> Cell:
    """The model's name, and where none of its runs has a result, what became of them."""
    runs = tables["runs"]
    statuses = list(runs.loc[runs["model"] == model, "status"])
    return model, "" if "ok" in statuses else statuses[0]


def _training(trainings, model: str):
    """The rows, one per seed, of the model's largest budget that has a loss."""
    rows = trainings[(trainings["model"] == model) & trainings["loss"].notna()]
    return rows[rows["budget"] == rows["budget"].max()]


def seeded(tables) -> bool:
    """Whether a loss of the table is a mean over seeds."""
    trainings = tables["trainings"]
    return any(len(_training(trainings, model)) > 1 for model in trainings["model"].unique())


def _trained(tables, model: str, training) -> list[Cell | Measured]:
    mean = training[["tokens", "flops_exact", "loss", "bits_per_byte", "mfu"]].mean()
    every = size_of(tables, model, "parameters_all")
    spread = training["loss"].std() if len(training) > 1 else None
    return [
        (show.exact(size_of(tables, model)), f"{show.exact(every)} all" if every else ""),
        (show.exact(mean["tokens"]), ""),
        (show.digits(mean["flops_exact"]), ""),
        Measured(mean["loss"], spread),
        (show.digits(mean["bits_per_byte"]), ""),
        (show.percent(mean["mfu"]), _compiled(training)),
    ]


def _compiled(training) -> str:
    known = training["compiled"].dropna()
    return "" if not len(known) else "compiled" if known.all() else "not compiled"


def _even(column) -> list[Cell]:
    """The shown text of a column: numbers with errors have the places of the one that has most, as
    far as four digits go, or their own where these are more."""
    known = [cell for cell in column if isinstance(cell, Measured) and not show.absent(cell.value)]
    sure = [cell for cell in known if cell.error and not show.absent(cell.error)]
    least = max((show.places(*cell) for cell in sure), default=0)
    largest = max((abs(cell.value) for cell in known), default=0)
    least = min(least, max(0, 3 - math.floor(math.log10(largest)))) if largest else least
    return [_shown(cell, least) if isinstance(cell, Measured) else cell for cell in column]


def _shown(cell: Measured, least: int) -> Cell:
    shown, sign, error = show.plus_minus(*cell, least).partition(" ± ")
    if not sign and least and not show.absent(cell.value):
        return f"{cell.value:,.{least}f}".replace("-", "−"), ""
    return shown, f"±{error}" if sign else ""


def _score_columns(tables) -> list[tuple[dict[str, str], Any]]:
    """A column per task: its main metric ± 1.96 standard errors, the chance level in its head."""
    main, columns, blurred = scores.main(tables), [], scores.blurred(tables)
    called = scores.namer(main)
    for key, rows in main.groupby(scores.KEYS, dropna=False):
        suite, task, metric, filter = key
        chance = rows["chance"].dropna()
        unit = _UNITS.get(metric, scores.metric_name(metric))
        unit += f", chance {chance.iloc[0]:.3g}" if len(chance) else ""
        name = called(suite, task, filter) + (f" {scores.BLURRED}" if key in blurred else "")
        columns.append(({"name": name, "unit": unit}, _score_of(rows)))
    return columns[:MOST_SCORES]


def _score_of(rows):
    def value(model: str, training) -> Cell | Measured:
        mine = rows[rows["model"] == model]
        if len(training):
            mine = mine[mine["budget"] == training["budget"].iloc[0]]
        if not len(mine):
            return show.NOTHING, ""
        error = scores.WIDTH * mine["standard_error"].mean()
        if error == 0:  # items that all went one way show no spread, which is not certainty
            return show.digits(mine["value"].mean()), f"all {show.exact(mine['items'].min())} alike"
        return Measured(mine["value"].mean(), error)

    return value


def _probe_columns(tables) -> list[tuple[dict[str, str], Any]]:
    memory = tables["memory"][tables["memory"]["status"] == "ok"]
    cells, memory = ways.one_reader(ways.timed(tables["cells"])), ways.one_reader(memory)

    def speed(model: str, _training) -> Cell:
        mine = cells[cells["model"] == model]
        return show.digits(mine["tokens_per_second"].median()), "busy" if ways.busy(mine) else ""

    def peak(model: str, _training) -> Cell:
        return show.digits(memory.loc[memory["model"] == model, "peak_bytes"].max() / 2**20), ""

    return [
        ({"name": "Decoding", "unit": "tokens/s"}, speed),
        ({"name": "Memory", "unit": "MiB, peak"}, peak),
    ]
