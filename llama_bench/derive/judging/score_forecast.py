"""What held-out trainings will score on a task, from the scores of the others.

A share of items (accuracy, exact match) is forecast by the best of three laws in the back-test:
`direct`, a sigmoid of compute (Owen 2024), `two_step`, compute to a task loss to the share (Bhagia
et al. 2024), and `constant`, no change, which these have to beat: of a task that tells no sizes
apart, a sigmoid foretells whatever noise bends it to. The task loss is the bits per byte of the
right answer; a task that has none takes the training's held-out loss, as Gadre et al. 2024 (arXiv
2403.08540) go from loss to error. The sigmoid runs from chance, where there are choices to guess
among, else from 0, to 1: runs far from its ends determine neither. chrF, BLEU and ROUGE are no
shares of items, but bounded as these are: the same laws are fitted to them over the best score that
there is. Bits per byte are a loss, and forecast as one. What has no bounds (TER, perplexity) has no
law here.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from llama_bench.derive.judging import choice
from llama_bench.derive.predict import predict_table
from llama_bench.derive.tables import main_metric

FEWEST = 6  # runs: below, no law can be tested on larger ones
BRIEF = {"draws": 400, "starts": 48}  # many tasks are forecast at one time
_LOSSES = ("chinchilla", "kaplan")
_COLUMNS = ["params", "tokens", "flops", "seed"]


def of_task(known: pd.DataFrame, points: pd.DataFrame, metric: str) -> dict[str, Any]:
    """law, status, why, choice, parameters and `points` with their intervals.

    `known` has a row a run: params, tokens, flops, seed, `loss` of the training, `value` of the
    metric, `task_loss` (missing where the task has none) and `chance`. `points` are the held-out
    runs: at least params, tokens, flops.
    """
    nothing = _nothing(known, metric)
    if nothing:
        blank = {"law": None, "choice": None, "parameters": {}, "task_loss": None}
        return {**nothing, **blank, "points": points.to_dict("records")}
    most = main_metric.most(metric, known["value"])
    frame, laws, step = _losses(known) if most is None else _shares(known, most)
    asked = {"law": "auto", "laws": laws, "selections": [None]}
    fit = choice.fitted(frame, asked, source=f"the scores ({metric})")
    told = predict_table(fit, points)
    if most is not None:
        ends = [name for name in told if name.startswith(("low_", "high_"))]
        told[ends] = told[ends].clip(0, 1)
        told[["point", *ends]] *= most
    return {
        "law": fit["law"],
        "status": fit["status"],
        "why": why(fit),
        "choice": fit["choice"],
        "parameters": fit["parameters"],
        "task_loss": step if fit["law"] == "two_step" else None,
        "points": told.to_dict("records"),
    }


def why(fit: dict[str, Any]) -> str | None:
    """Why this law was chosen and, of a fit that did not converge, why it did not."""
    ended = f"the fit ended {fit['status']}: {fit['why']}" if fit["status"] != "converged" else None
    return "; ".join(filter(None, [fit.get("choice", {}).get("why"), ended])) or None


def foretold(metric: str) -> bool:
    """Whether there is a law for such a metric."""
    return metric == "bits_per_byte" or main_metric.most(metric, []) is not None


def _nothing(known: pd.DataFrame, metric: str) -> dict[str, str] | None:
    """Status and reason where nothing can be fitted."""
    if len(known) < FEWEST:
        reason = f"{len(known)} evaluated runs; a forecast needs at least {FEWEST}"
        return {"status": "too-few-points", "why": reason}
    if known["value"].nunique() == 1:
        reason = f"all {len(known)} runs have the same {metric}, {known['value'].iloc[0]:.4g}"
        return {"status": "ill-posed", "why": reason}
    return None


def _shares(known: pd.DataFrame, most: float) -> tuple[pd.DataFrame, list[dict], str]:
    own = known["task_loss"].notna().all()
    step = main_metric.TASK_LOSS if own else "loss"
    columns = {
        "accuracy": known["value"] / most,
        "task_loss": known["task_loss" if own else "loss"],
    }
    floor = known["chance"].mean() if own and known["chance"].notna().all() else 0.0
    asked = {"chance": float(floor), "ceiling": 1.0, **BRIEF}
    laws = [{"law": "constant", **BRIEF}]  # the simplest first: others must be better by a margin
    laws += [{"law": law, **asked} for law in ("direct", "two_step")]
    return known[_COLUMNS].assign(**columns), laws, step


def _losses(known: pd.DataFrame) -> tuple[pd.DataFrame, list[dict], None]:
    laws = [{"law": law, **BRIEF} for law in _LOSSES]
    return known[_COLUMNS].assign(loss=known["value"]), laws, None
