"""The columns of the study's tables, and their kinds.

Long form: one row per thing measured, every row saying of which run and which model it is, so
that a table can be read alone.
"""

from __future__ import annotations

from llama_bench.derive.tables.column_groups import (
    METRIC,
    PARAMETERS,
    RUN,
    SCORED,
    TRAINED,
    TUNED,
)
from llama_bench.derive.tables.fusion_columns import FUSION
from llama_bench.derive.tables.probe_columns import PROBING
from llama_bench.derive.tables.tuning_columns import TUNING

# fmt: off
# table -> column -> kind. `run` is the id of a run, `model` the study's name for it, `origin`
# trained or pretrained, `data` the name of the training text, if it is not the study's own; every
# other name is explained, with its unit, in docs/protocol.md.
COLUMNS: dict[str, dict[str, str]] = {
    # one row per run that the study asks for
    "runs": {
        "id": "text", "verb": "text", "model": "text", "origin": "text", **TRAINED, **TUNED,
        "fuse": "text", "suite": "text", "status": "text", "reason": "text",
        "seconds_startup": "real", "seconds_total": "real", "threads": "count",
        "host": "text", "path": "text", "log": "text",
    },
    # one row per run that has a record: where and with what it was made
    "provenance": {
        "run": "text", "verb": "text", "host": "text", "system": "text", "processor": "text",
        "cores": "count", "memory_bytes": "count", "threads": "count", "python": "text",
        "packages": "text", "git_commit": "text", "git_changed": "flag", "began": "real",
        "command": "text",
    },
    # one row per training that ended, well or not. `role` is ladder, sweep, sensitivity,
    # member or control (of the fusion `fuse`), `factor` what its rate is of the recipe's;
    # `same_text`: reads what the study's own text holds
    "trainings": {
        **RUN, **TRAINED, "flop_budget": "real", "role": "text", "factor": "real",
        "fuse": "text", "same_text": "flag", "prepare": "text", "status": "text",
        "reason": "text", **PARAMETERS,
        "tokens": "count", "steps": "count", "unique_tokens": "count", "trained_tokens": "count",
        "continued_from": "text", "flops_exact": "real", "flops_six_n_d": "real",
        "loss": "real", "loss_standard_error": "real", "averaged_loss": "real",
        "trunk_loss": "real", "bits_per_byte": "real", "train_loss": "real", "mfu": "real",
        "compiled": "flag", "tokens_per_second": "real", "peak_bytes": "count",
        "threads": "count", "device": "text",
        "layers": "count", "width": "count", "heads": "count", "kv_heads": "count",
        "ffn_width": "count", "tied_embeddings": "flag", "context": "count", "batch": "count",
        "learning_rate": "real", "warmup_tokens": "count", "schedule": "text", "decay": "text",
        "decay_share": "real",
        "weight_decay": "real", "precision": "text", "ended_at_step": "count",
        "ended_at_loss": "real",
    },
    # the trainings that have a loss, in the form a law is fitted to: params are those without
    # embeddings, flops the exact count; the other counts beside them show what the choice does.
    # `fit` takes a column `budget` for one of compute, so that of tokens has its unit in its name
    "ladder": {
        "params": "count", "tokens": "count", "loss": "real", "flops": "real",
        "unique_tokens": "count", "budget": "real", "token_budget": "count", "seed": "count",
        "params_all": "count", "params_in_matrix_products": "count", "flops_six_n_d": "real",
        "model": "text", "run": "text",
    },
    # the same of all trainings that read the study's own text, also where they read less of it
    # over and over: what the law of repeated tokens is fitted to
    "repetition": {
        "params": "count", "tokens": "count", "loss": "real", "flops": "real",
        "unique_tokens": "count", "budget": "real", "token_budget": "count", "seed": "count",
        "params_all": "count", "params_in_matrix_products": "count", "flops_six_n_d": "real",
        "model": "text", "run": "text",
    },
    # one row per training and point of its loss curve
    "curves": {
        **RUN, **TRAINED, "parameters_without_embeddings": "count", "tokens": "count",
        "train_loss": "real", "validation_loss": "real", "learning_rate": "real",
    },
    # one row per model, task, metric and filter
    "scores": {
        **SCORED, "metric": "text", "filter": "text", "value": "real",
        "standard_error": "real", "chance": "real", "higher_is_better": "flag", "items": "count",
        "version": "text", "shots": "count", "unscored": "count", "truncated": "count",
        "respelled": "count", "lossy": "count", "first": "flag",
    },
    # the same of the items of a task that were made in one way, by its name
    "constructions": {
        **SCORED, "construction": "text", "metric": "text", "filter": "text", "value": "real",
        "standard_error": "real", "items": "count",
    },
    # one row per model, multiple-choice task, right answer and answer given (their places, and
    # their texts where all items have the same): the confusion matrix, in long form
    "answers": {
        **SCORED, "gold": "count", "given": "count", "gold_text": "text", "given_text": "text",
        "items": "count",
    },
    # one row per model, task of the same answers for all items, and answer: `items` have it as the
    # right one, to `given` it was given; a quotient that has no denominator is null
    "classes": {
        **SCORED, "answer": "text", "items": "count", "given": "count", "right": "count",
        "precision": "real", "recall": "real", "f1": "real",
    },
    # one row per task metric and two sizes on the same items: `model` is the larger, `difference`
    # its value less that of `against`; `only_model`: items that it alone has right; `p_adjusted`
    # holds for all pairs of the metric together, `told_apart` is whether it lies below 0.05
    "pairs": {
        **METRIC, "origin": "text", "model": "text", "against": "text", "neighbours": "flag",
        "parameters_without_embeddings": "count",
        "against_parameters_without_embeddings": "count", "budget": "count",
        "against_budget": "count", "seeds": "count", "items": "count", "difference": "real",
        "standard_error": "real", "only_model": "count", "only_against": "count", "test": "text",
        "p": "real", "p_adjusted": "real", "told_apart": "flag",
    },
    # one row per task metric, over its sizes or budgets: whether signal exceeds noise
    # (derive/tables/screen.py); `freedom` of the noise is null where it is infinite
    "screen": {
        **METRIC, "over": "text", "levels": "count", "signal": "real", "noise": "real",
        "noise_source": "text", "freedom": "real", "noise_seeds": "real", "noise_items": "real",
        "noise_checkpoints": "real", "ratio": "real", "needed": "real", "told_apart": "flag",
    },
    # the ladder's evaluated trainings in the form that a law of scores is fitted to: means over
    # the `tasks` of multiple choice that all of them have
    "task_ladder": {
        "params": "count", "tokens": "count", "flops": "real", "task_loss": "real",
        "accuracy": "real", "chance": "real", "ceiling": "real", "tasks": "count", "seed": "count",
        "model": "text", "run": "text",
    },
    **PROBING,
    # one row per model, prompt and way of decoding
    "samples": {
        **RUN, **TRAINED, "state": "text", **TUNED, "before": "flag", "fuse": "text",
        **PARAMETERS, "prompt": "text", "decoding": "text",
        "sample_seed": "count", "text": "text",
    },
    # one row per part of a prepared corpus
    "data": {
        "run": "text", "data": "text", "corpus": "text", "part": "text", "documents": "count",
        "bytes": "count", "tokens": "count", "near_duplicate_documents": "count",
        "unreadable_documents": "count",
        "overlapping_documents": "count",
        "vocab_size": "count", "bytes_per_token": "real", "corpus_sha256": "text",
    },
    # one row per training text and step of its cleaning, in order: what it took away, and left
    "cleaning": {
        "run": "text", "data": "text", "position": "count", "step": "text",
        "documents_removed": "count", "documents_changed": "count", "bytes_removed": "count",
        "documents": "count", "bytes": "count",
    },
    # one row per task that was written from held-out documents, or could not be
    "tasks": {
        "run": "text", "task": "text", "items": "count", "metric": "text", "chance": "real",
        "higher_is_better": "flag", "description": "text", "left_out": "text",
    },
    **TUNING,
    **FUSION,
    # one row per forecast file, held-out training and level of the interval: what was foretold
    # (an endless interval ends at infinity), and what was then measured. `run_status` and `loss`
    # are the training's, `error_percent` is of the loss (above 0: foretold too high), `before` is
    # whether it was written before the training began; `covered` is the back-test's share
    "forecasts": {
        "forecast": "text", "written": "real", "law": "text", "status": "text", "why": "text",
        "runs_used": "count", "run": "text", "model": "text", **TRAINED, "params": "count",
        "tokens": "count", "flops": "real", "point": "real", "level": "real", "low": "real",
        "high": "real", "covered": "real", "run_status": "text", "loss": "real",
        "error_percent": "real", "inside": "flag", "before": "flag",
    },
    # the same of scores: one row per forecast file, task, held-out training and level. `run` is the
    # training, `run_status` that of its `evaluation`; `error` is the point less the value
    "score_forecasts": {
        "forecast": "text", "written": "real", "task": "text", "metric": "text", "filter": "text",
        "law": "text", "status": "text", "why": "text", "runs_used": "count", "run": "text",
        "evaluation": "text", "model": "text", **TRAINED, "params": "count", "tokens": "count",
        "flops": "real", "point": "real", "level": "real", "low": "real", "high": "real",
        "covered": "real", "run_status": "text", "value": "real", "standard_error": "real",
        "error": "real", "inside": "flag", "before": "flag",
    },
    # one row per forecast file, law and selection of runs that the back-test compared for it:
    # `score` is the mean error in % over the folds that all of them could forecast; `task` is null
    # where the loss is forecast
    "candidates": {
        "forecast": "text", "task": "text", "law": "text", "within_percent": "real",
        "chosen": "flag", "score": "real", "mean_error_percent": "real",
        "mean_bias_percent": "real", "best_runs_error_percent": "real", "rows_hidden": "count",
        "folds": "count",
    },
    # one row per thing that was asked and gave no number: a run, a task, a probed cell
    "failures": {
        "run": "text", "verb": "text", "model": "text", "what": "text", "status": "text",
        "reason": "text", "log": "text",
    },
}
# fmt: on

# tables of what evaluations gave
EVALUATED = ("scores", "constructions", "answers", "classes", "samples")
# tables of what probes gave
PROBED = ("cells", "speeds", "memory", "largest_batches")
