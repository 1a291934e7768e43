"""Columns that several tables share: of which run and model a row is, and what it tells of."""

from __future__ import annotations

RUN = {"run": "text", "model": "text", "origin": "text"}
TRAINED = {"budget": "count", "seed": "count", "data": "text"}
PARAMETERS = {
    "parameters_all": "count",
    "parameters_without_embeddings": "count",
    "parameters_in_matrix_products": "count",
}
# of a fine-tuned model, whose `model`, budget and seed are its base's; `finetune` is the name of
# the fine-tuning, `fraction` the share of the labelled examples that it read
TUNED = {
    "finetune": "text",
    "fraction": "real",
    "method": "text",
    "from_zero": "flag",
    "tuning_seed": "count",
}
# `state` of a training that was evaluated: trunk or averaged, null for its end; `before`: a base on
# the task that it is fine-tuned for; `fuse` the name of a fusion
SCORED = {
    **RUN,
    **TRAINED,
    "state": "text",
    **TUNED,
    "before": "flag",
    "fuse": "text",
    **PARAMETERS,
    "suite": "text",
    "task": "text",
}
METRIC = {"suite": "text", "task": "text", "metric": "text", "filter": "text"}
CELL = {"phase": "text", "batch": "count", "context": "count"}
# of what was probed: `members` is how many models answer as one, null of a single one
WAY = {
    "device": "text",
    "engine": "text",
    "precision": "text",
    "fuse": "text",
    "members": "count",
}
