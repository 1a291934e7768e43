# A table of contents: load the study, include the rules, ask for the report.
import sys

from llama_bench.marks import forget_finished
from llama_bench.study import UserError, load

try:
    study = load(config)
except UserError as error:
    sys.exit(f"llama_bench: {error}")

forget_finished(set(study.runs))
study.forced = lambda: (  # told by -F, -f and -R, which are read after this file
    (asked := workflow.dag_settings).forceall or asked.forcetargets or asked.forcerun
)
study.near = lambda: workflow.local_exec and not workflow.remote_exec


onstart:  # not earlier: only now is it known whether jobs run on this machine
    try:
        study.check_device(elsewhere=workflow.non_local_exec)
    except UserError as error:
        sys.exit(f"llama_bench: {error}")


wildcard_constraints:
    run=r"[A-Za-z0-9._+-]+",
    forecast=r"[A-Za-z0-9._+-]+",
    law=r"[a-z_]+",


# the whole study, to its report
rule all:
    default_target: True
    input:
        f"{study.folder}/report.html",
        [f"{study.folder}/fits/{law}.json" for law in study.laws],
        study.records(study.name),  # one that was deleted is made again


# the report of what is there; it names what is missing
rule partial:
    input:
        f"{study.folder}-partial/report.html",


include: "workflow/rules/prepare.smk"
include: "workflow/rules/tasks.smk"
include: "workflow/rules/examples.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/fuse.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/limits.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/forecast.smk"
include: "workflow/rules/collect.smk"
include: "workflow/rules/fit.smk"
include: "workflow/rules/plot.smk"
include: "workflow/rules/report.smk"
