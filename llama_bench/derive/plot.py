"""From a study's tables and fits to its figures: `plot SPEC FIGURES/index.json TABLES FITS...`.

Every figure is an SVG beside the index, which lists name, file, title, caption and section in the
order of the report. A figure that has no data is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_bench.derive.collect import spec_of
from llama_bench.derive.tables import study_tables
from llama_bench.fields import UserError
from llama_bench.records import write_text


def run(spec: str, output: Path, inputs: list[Path]) -> None:
    """Draw all figures that the study has data for, and write `output`, their index.

    `spec` is JSON: {"study"}. `inputs`: tables/runs.parquet (the other tables lie beside it) and
    any number of fit files. Raises UserError naming an input that is missing or damaged.
    """
    spec_of(spec, "plot", "study")
    everything, fits = read_inputs("plot", inputs)
    content = study_tables.own_ladder(everything)
    from llama_bench.derive.figures import (
        cost,
        data,
        drawing,
        finetuning,
        forecast,
        fusion,
        ladder,
        law,
        loss,
        score_tokens,
        tasks,
    )

    output.parent.mkdir(parents=True, exist_ok=True)
    before = (loss, ladder, law, forecast, data, tasks, score_tokens)
    beside = (ladder, data, score_tokens, finetuning, fusion)
    entries = []
    with drawing.style():
        for theme in (*before, finetuning, fusion, cost):
            # what was trained beside the ladder is compared with it by these alone
            tables = everything if theme in beside else content
            for figure in theme.draw(tables, fits):
                write_text(output.parent / f"{figure.name}.svg", figure.svg())
                entries.append(figure.entry())
    for stale in set(output.parent.glob("*.svg")) - {output.parent / e["file"] for e in entries}:
        stale.unlink()
    write_text(output, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


def read_inputs(verb: str, inputs: list[Path]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All tables by name, and all fits in order; an index of figures among `inputs` is skipped."""
    runs = [path for path in inputs if path.name == "runs.parquet"]
    if len(runs) != 1:
        raise UserError(f"{verb}: needs one runs.parquet among its inputs")
    fits = [path for path in inputs if path.suffix == ".json" and path.name != "index.json"]
    return study_tables.read(runs[0]), [_fit(path) for path in fits]


def _fit(path: Path) -> dict[str, Any]:
    try:
        fit = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: is no fit file ({error})") from None
    if not isinstance(fit, dict) or not {"law", "status"} <= set(fit):
        raise UserError(f"{path}: is no fit file (it has no law and status); make it with `fit`")
    return fit
