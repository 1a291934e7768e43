"""From tables, fits and figures to one HTML file: `report SPEC REPORT.html TABLES INDEX FITS...`.

The file stands alone: styles and figures are inside it, nothing is fetched, no script runs. What
it says is computed from the tables; what was not measured is not said. The text of models is
shown as text, whatever it holds.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from llama_bench.derive.collect import spec_of
from llama_bench.derive.plot import read_inputs
from llama_bench.derive.tables import study_tables
from llama_bench.derive.words import (
    answertext,
    cost_table,
    costtext,
    data_table,
    finetune_table,
    fusion_table,
    headline,
    key_table,
    laddertext,
    lawtext,
    ledger_table,
    ledgertext,
    making,
    noisetext,
    ratetext,
    sampletext,
    scoreledgertext,
    scores,
    show,
    subject,
    ways,
)
from llama_bench.fields import UserError
from llama_bench.records import write_text

ROWS_SHOWN = 200
SECTIONS = {
    "loss": "Loss",
    "data": "Data",
    "tasks": "Tasks",
    "finetuning": "Fine-tuning",
    "fusion": "Fusion",
    "cost": "Speed and memory",
}


def run(spec: str, output: Path, inputs: list[Path]) -> None:
    """Write the report of a study to `output`.

    `spec` is JSON: {"study", "config", "unfinished": [runs that are not done yet]}. `inputs`:
    tables/runs.parquet, figures/index.json, fit files. Raises UserError naming an input that is
    missing or damaged.
    """
    asked = spec_of(spec, "report", "study")
    everything, fits = read_inputs("report", inputs)
    content = study_tables.own_ladder(everything)
    figures = _figures(inputs)
    found = headline.findings(content)
    ledger = ledgertext.points(content["forecasts"])
    config = asked.get("config") or {}
    page = _template().render(
        study=asked["study"],
        unfinished=asked.get("unfinished") or [],
        subject=subject.sentence(content, config),
        headline=subject.without_loss(content) + headline.sentence(found)
        or subject.nothing_to_compare(content),
        findings=found,
        **_models(content),
        **_tasks(content),
        figures=figures,
        sections=SECTIONS,
        **_ladder(everything),
        data=data_table.told(everything),
        finetuning=finetune_table.told(everything),
        fusion=fusion_table.told(everything),
        **_cost(content),
        laws=[lawtext.told(fit) for fit in fits if not lawtext.of_scores(fit)],
        score_laws=[lawtext.told(fit) for fit in fits if lawtext.of_scores(fit)],
        no_law="" if fits else lawtext.none(content["ladder"], config),
        forecast_words=ledgertext.words(ledger),
        forecasts=ledger_table.table(ledger, content["candidates"]),
        **_score_forecasts(content),
        samples=sampletext.told(content),
        failures=_failures(content["failures"], content["runs"]),
        **_making(content),
        config=making.configuration(config),
        tables=[_table(name, frame) for name, frame in everything.items()],
        rows_shown=ROWS_SHOWN,
    )
    write_text(output, page)


def _template():
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["visible"] = _visible
    return environment.get_template("report.html.j2")


def _tasks(content) -> dict[str, Any]:
    """What is said of scores: which are skill, which differences are more than chance."""
    first = scores.above_chance(content)
    said = [first] if first else []
    return {
        "task_words": [
            *said,
            *noisetext.words(content),
            *answertext.words(content),
            *answertext.altered(content),
        ],
        "pairs": noisetext.pair_tables(content),
        "screen": noisetext.screen_rows(content),
        "confusions": answertext.confusions(content),
    }


def _score_forecasts(content) -> dict[str, Any]:
    ledger = scoreledgertext.points(content["score_forecasts"])
    words, table = scoreledgertext.words(ledger), scoreledgertext.table(ledger)
    return {"score_words": words, "score_forecasts": table}


def _ladder(everything) -> dict[str, Any]:
    """What is said of the ladder from all that was trained, beside it too."""
    return {
        "ladder_words": [*laddertext.words(everything), *ratetext.words(everything)],
        "drift": ratetext.drift(ratetext.rates(everything)),
    }


def _models(content) -> dict[str, Any]:
    columns, rows = key_table.key_table(content)
    about = {
        "cell": ways.cell_name(ways.timed(content["cells"])),
        "seeded": key_table.seeded(content),
        "blurred": noisetext.mark([column["name"] for column in columns]),
    }
    return {"key_columns": columns, "key_rows": rows, **about}


def _cost(content) -> dict[str, Any]:
    return {
        "cost_words": costtext.words(content),
        "cost_interval": costtext.INTERVAL,
        "cost": cost_table.told(content),
    }


def _making(content) -> dict[str, Any]:
    return {
        "seconds": making.seconds_by_verb(content["runs"]),
        "time_spent": making.time_spent(content["runs"], content["provenance"]),
        "surroundings": making.surroundings(content["provenance"]),
    }


def _figures(inputs: list[Path]) -> list[dict[str, str]]:
    """The index's entries with the figure's SVG, its ids made unique within the page."""
    index = next((path for path in inputs if path.name == "index.json"), None)
    if index is None:
        raise UserError("report: needs figures/index.json among its inputs; make it with `plot`")
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        return [
            entry | {"svg": _inline(entry["name"], index.parent / entry["file"])}
            for entry in entries
        ]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index}: is no index of figures ({error!r})") from None


def _inline(name: str, path: Path):
    from markupsafe import Markup

    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    own = re.findall(r'\bid="([^"]+)"', text)
    for found in sorted(set(own) - {f"{name}-title", f"{name}-desc"}, key=len, reverse=True):
        text = re.sub(
            rf'(\bid="|href="#|url\(#){re.escape(found)}(?=["\)])', rf"\g<1>{name}.{found}", text
        )
    return Markup(text)


def _visible(text: str) -> str:
    """Control characters, which a browser drops or obeys, as the replacement character."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", str(text))


def _failures(failures, runs) -> list[dict[str, str]]:
    """What was asked and gave no number, and the runs that have no record; once for each reason of
    a run."""
    missing = runs[runs["status"] == "missing record"].rename(columns={"id": "run"})
    missing = missing.assign(what=missing["verb"], reason="not finished, or ended by an accident")
    keys, found = ["run", "verb", "model", "status", "reason", "log"], {}
    for frame in (failures, missing):
        for row in frame[[*keys, "what"]].to_dict("records"):
            told = {key: show.NOTHING if show.absent(v) else v for key, v in row.items()}
            found.setdefault(tuple(told[key] for key in keys), []).append(told)
    return [
        {**rows[0], "what": f"{len(rows)} tasks, such as {rows[0]['what']}"}
        if len(rows) > 1
        else rows[0]
        for rows in found.values()
    ]


def _table(name: str, frame) -> dict[str, Any]:
    kinds = study_tables.COLUMNS[name]
    shown = {
        "text": lambda value: show.NOTHING if show.absent(value) else _visible(value),
        "count": show.exact,
        "real": lambda value: show.digits(value, 4),
        "flag": lambda value: show.NOTHING if show.absent(value) else str(bool(value)).lower(),
    }
    rows = [
        [shown[kinds[column]](value) for column, value in zip(kinds, row, strict=True)]
        for row in frame.head(ROWS_SHOWN).itertuples(index=False)
    ]
    columns = [
        {"name": column, "number": kind in ("count", "real")} for column, kind in kinds.items()
    ]
    return {"name": name, "columns": columns, "rows": rows, "total": len(frame)}
