"""Probes written from known numbers, and their tables and figures."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
from study_on_paper import CONFIG, Paper, shape_of_size

from llama_bench.derive import collect
from llama_bench.derive.figures import cost, drawing
from llama_bench.derive.tables import study_tables

TWO = {"50k": 50_000, "300k": 300_000}


def tabled(paper: Paper, **probe) -> dict:
    """All tables; `probe` is that section of the configuration."""
    runs = paper.root / "tables" / "runs.parquet"
    spec = json.loads(paper.spec())
    collect.run(json.dumps(spec | {"config": CONFIG | {"probe": probe}}), runs, [])
    return study_tables.read(runs)


def drawn(paper: Paper, *wanted: str, **probe) -> dict[str, dict]:
    """Entries of the section's figures by name; of those `wanted` the drawing is written too."""
    tables, entries = study_tables.own_ladder(tabled(paper, **probe)), {}
    (paper.root / "figures").mkdir(exist_ok=True)
    with drawing.style():
        for figure in cost.draw(tables, []):
            entries[figure.name] = figure.entry()
            if figure.name in wanted:
                text = figure.svg()
                (paper.root / "figures" / f"{figure.name}.svg").write_text(text)
            plt.close(figure.canvas)
    return entries


def cells_only(root, **changed) -> Paper:
    paper = Paper(root, sizes=TWO)
    paper.limits(changed.get("kind", "cpu"))
    for label, size in TWO.items():
        paper.probe(label, shape_of_size(size), **changed)
    return paper


def small(root) -> Paper:
    """Two sizes at one budget, with scores."""
    return Paper(root, sizes=TWO, budgets=(200_000,)).whole()


def changed_cells(paper: Paper, change) -> None:
    for path in sorted(paper.root.glob("runs/probe/*/record.json")):
        record = json.loads(path.read_text())
        for found in record["result"]["cells"]:
            change(found)
        path.write_text(json.dumps(record))
