"""From a study on paper to its tables, figures and page, by the verbs themselves."""

from __future__ import annotations

import json

from study_on_paper import CONFIG, Paper

from llama_bench.derive import collect, fit, plot, report
from llama_bench.derive.tables import study_tables


def tabled(paper: Paper):
    runs = paper.root / "tables" / "runs.parquet"
    collect.run(paper.spec(), runs, [])
    return study_tables.read(runs)


def drawn(paper: Paper, *laws: str) -> dict[str, dict]:
    tabled(paper)
    runs, index = paper.root / "tables" / "runs.parquet", paper.root / "figures" / "index.json"
    fits = [paper.root / "fits" / f"{law}.json" for law in laws]
    for law, path in zip(laws, fits, strict=True):
        fit.run(law, path, [runs.with_name("ladder.parquet")])
    plot.run('{"study": "paper"}', index, [runs, *fits])
    return {entry["name"]: entry for entry in json.loads(index.read_text())}


def page(paper: Paper) -> str:
    drawn(paper)
    runs, index = paper.root / "tables" / "runs.parquet", paper.root / "figures" / "index.json"
    asked = {"study": "paper", "config": CONFIG, "unfinished": []}
    report.run(json.dumps(asked), paper.root / "report.html", [runs, index])
    return (paper.root / "report.html").read_text()
