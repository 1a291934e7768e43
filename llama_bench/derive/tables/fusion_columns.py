"""The columns of the tables on fusion (columns.py has all others)."""

from __future__ import annotations

from llama_bench.derive.tables.column_groups import METRIC, PARAMETERS, RUN

# `fuse` is the name of a fusion; `model`, `budget` and `seed` are its members', where they share it
_FUSED = {"model": "text", "fuse": "text", "budget": "count", "seed": "count", "method": "text"}

# fmt: off
FUSION: dict[str, dict[str, str]] = {
    # one row per fusion that ended, well or not. `members` is their number, `best_loss` the least
    # of theirs, `joined` the places of those in a greedy soup, `control` the run of the training
    # or fine-tuning that has the compute of them all; `control_loss` and its gain over the best
    # member, where a fusion measured them
    "fusions": {
        **RUN, **_FUSED, "weighting": "text", "temperature": "real", "status": "text",
        "reason": "text", "related": "flag", "members": "count", **PARAMETERS, "loss": "real",
        "loss_standard_error": "real", "bits_per_byte": "real", "validation_tokens": "count",
        "best_loss": "real", "gain": "real", "gain_standard_error": "real", "barrier": "real",
        "joined": "text", "chosen_apart": "flag", "control": "text", "control_loss": "real",
        "control_gain": "real", "control_gain_standard_error": "real", "peak_bytes": "count",
        "seconds_total": "real",
    },
    # one row per fusion and member, in the order asked: `member` is its run, or the model
    # trained elsewhere; `made_by` the verb of the run
    "fusion_members": {
        "run": "text", **_FUSED, "place": "count", "made_by": "text", "member": "text",
        "weight": "real", "loss": "real", "choosing_loss": "real",
    },
    # one row per point of the straight line between the first two members' weights
    "fusion_lines": {
        "run": "text", **_FUSED, "related": "flag", "share": "real", "loss": "real",
    },
    # one row per fusion and number of members, evenly weighted: the mean over `sets` of as many,
    # or of the first ones where there is one set
    "fusion_growth": {
        "run": "text", **_FUSED, "related": "flag", "members": "count", "loss": "real",
        "sets": "count",
    },
    # one row per grown fusion and parameter of its law (derive/laws/merging.py), with the 95 %
    # interval, infinite where it is open; where nothing was fitted, one row that says why
    "merging_laws": {
        "run": "text", **_FUSED, "status": "text", "why": "text", "points": "count",
        "parameter": "text", "value": "real", "low": "real", "high": "real",
    },
    # one row per evaluated fusion and task metric: its value less that of the member with the least
    # loss among those that answered the same tasks (`member`, its evaluation); `best_` is of the
    # member with the best value of that very metric. `method` is `control` of the control;
    # `tasks_cross` where one task's test documents may be among those another's examples are from
    "fusion_scores": {
        "run": "text", **_FUSED, "member": "text", **METRIC, "higher_is_better": "flag",
        "value": "real", "value_standard_error": "real", "member_value": "real",
        "best_member_value": "real", "best_difference": "real", "best_standard_error": "real",
        "difference": "real", "standard_error": "real", "test": "text", "p": "real",
        "items": "count", "tasks_cross": "flag",
    },
}
# fmt: on
