"""The columns of the tables on fine-tuning (columns.py has all others)."""

from __future__ import annotations

from llama_bench.derive.tables.column_groups import METRIC, PARAMETERS, RUN, TRAINED, TUNED

# fmt: off
TUNING: dict[str, dict[str, str]] = {
    # one row per set of labelled examples and part of it; `labels` is the number of its answers
    "examples": {
        "run": "text", "finetune": "text", "task": "text", "part": "text", "examples": "count",
        "documents": "count", "answer_bytes": "count", "labels": "count", "metric": "text",
        "chance": "real",
    },
    # one row per set of labelled examples, part and answer, where these are a few labels
    "labels": {
        "run": "text", "finetune": "text", "task": "text", "part": "text", "label": "text",
        "examples": "count",
    },
    # one row per run, part and reason for which it left labelled examples out, or what lacked of
    # them that were `kept`; of `examples` runs, which leave out before there are parts, no part
    "exclusions": {
        "run": "text", "verb": "text", "model": "text", **TUNED, "part": "text", "reason": "text",
        "kept": "flag", "examples": "count",
    },
    # one row per fine-tuning that ended, well or not: nats per answer token; `base` is the run or
    # the model that it began with, `forgetting` the loss of held-out text of the corpus
    "finetunings": {
        **RUN, **TRAINED, **TUNED, "base": "text", "task": "text", "status": "text",
        "reason": "text", **PARAMETERS, "trained_parameters": "count", "examples": "count",
        "validation_examples": "count", "test_examples": "count", "test_left_out": "count",
        "answer_tokens": "count",
        "steps": "count", "best_step": "count", "epochs": "real", "stopped_early": "flag",
        "rank": "count", "alpha": "real", "batch": "count", "learning_rate": "real",
        "flops": "real", "validation_loss": "real", "test_loss": "real",
        "test_loss_standard_error": "real", "before_validation_loss": "real",
        "before_test_loss": "real", "forgetting_loss_before": "real",
        "forgetting_loss_after": "real", "forgetting_bits_per_byte_before": "real",
        "forgetting_bits_per_byte_after": "real", "forgetting_tokens": "count",
        "forgetting_reason": "text",
        "frozen_accuracy": "real", "frozen_macro_precision": "real",
        "frozen_macro_recall": "real", "frozen_macro_f1": "real", "frozen_items": "count",
        "majority_label": "text", "majority_accuracy": "real", "majority_macro_f1": "real",
        "tokens_per_second": "real", "seconds_total": "real", "peak_bytes": "count",
        "threads": "count", "device": "text",
    },
    # one row per fine-tuning and point of its loss curve
    "tuning_curves": {
        "run": "text", "model": "text", **TUNED, "step": "count", "train_loss": "real",
        "validation_loss": "real", "learning_rate": "real",
    },
    # one row per evaluated fine-tuned model, task metric and what it is held against (`against`:
    # before, or from zero): `difference` is its `value` less the other's on the same items;
    # `test` is null where a metric has no value of one item, and the standard error is too wide;
    # `p_adjusted` holds for all models of one fine-tuning and metric together
    "gains": {
        **RUN, **TRAINED, **TUNED, "against": "text", "against_run": "text", **PARAMETERS,
        **METRIC, "higher_is_better": "flag", "value": "real", "against_value": "real",
        "difference": "real", "standard_error": "real", "test": "text", "p": "real",
        "p_adjusted": "real", "told_apart": "flag", "items": "count", "only_after": "count",
        "only_against": "count",
    },
    # one row per fine-tuning, size and amount of labelled data that has a loss: what the transfer
    # law is fitted to (derive/tables/transfer.py). `effective_examples` is how many examples
    # training from zero takes to that loss; `transferred` those beyond its own; `state` is used,
    # beyond, nothing or no curve
    "transfer": {
        "finetune": "text", "method": "text", "model": "text", "budget": "count",
        "params": "count", "fraction": "real", "examples": "real", "loss": "real",
        "from_zero_loss": "real", "most_examples": "real", "state": "text",
        "effective_examples": "real", "transferred": "real", "runs": "count",
    },
    # one row per fine-tuning, method and parameter of its transfer law; where none was fitted, one
    # row that says why
    "transfer_laws": {
        "finetune": "text", "method": "text", "status": "text", "why": "text", "points": "count",
        "sizes": "count", "fractions": "count", "parameter": "text", "value": "real",
        "standard_error": "real", "low": "real", "high": "real", "level": "real",
    },
}
# fmt: on
