"""Snakemake from Python: what a study would run, and running it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml
from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness, RerunTrigger
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    ResourceSettings,
    SchedulingSettings,
    StorageSettings,
)

REPOSITORY = Path(__file__).parent.parent


def plan(folder: Path, config: dict, targets: list[str] | None = None) -> list[str]:
    """The jobs that `snakemake` would start in `folder`: "rule" or "rule run-id", sorted."""
    profile = yaml.safe_load((REPOSITORY / "profiles/default/config.yaml").read_text())
    triggers = profile["rerun-triggers"]
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(config=config),
            storage_settings=StorageSettings(),
            snakefile=REPOSITORY / "Snakefile",
            workdir=folder,
        )
        dag = workflow.dag(
            dag_settings=DAGSettings(
                targets=set(targets or []),
                rerun_triggers=frozenset(map(RerunTrigger.parse_choice, triggers)),
            )
        )
        dag.execute_workflow(
            executor="dryrun", scheduling_settings=SchedulingSettings(scheduler="greedy")
        )
        jobs = workflow._workflow.dag.needrun_jobs(exclude_finished=False)
        named = ((job.rule.name, job.wildcards_dict.get("run", "")) for job in jobs)
        return sorted(f"{rule} {run}".strip() for rule, run in named)


def snakemake(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """The command itself, as a user types it, in `folder`."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(folder), "--cores", "2", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
