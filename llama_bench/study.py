"""The study: what the workflow's rules ask about the runs of config.yaml, and nothing else.

This is all that the Snakefile imports, so it parses in a fraction of a second: no torch, no
pandas. Order and paths are the rules' matter; what a run is asked, and what it rests on, is
settled in runs.py.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_bench import config_file, machine
from llama_bench.config import PARTIAL, Config
from llama_bench.fields import UserError, unknown
from llama_bench.run import Run
from llama_bench.runs import Runs
from llama_bench.sections.fit import LAW_NEEDS
from llama_bench.specs import ForecastSpec
from llama_bench.trainings import STUDIES

__all__ = ["Study", "UserError", "load"]


class Study:
    """One configuration's runs, by the path of their records, as the rules see them."""

    def __init__(self, config: Config):
        asked = Runs(config)
        self.config = config
        self.name = config.study
        self.folder = f"{STUDIES}/{self.name}"
        self.forced = lambda: False  # whether snakemake was told to make finished runs again
        self.near = lambda: True  # whether its jobs run beside one another on this machine
        self.laws = config.laws
        self.runs: dict[str, Run] = asked.by_path
        self.forecasts: dict[str, ForecastSpec] = asked.forecasts
        self.check_device = asked.check_device

    def run(self, verb: str, run_id: str) -> Run:
        """The run that a rule's wildcards mean. Raises KeyError where this study has none."""
        return self.runs[f"results/runs/{verb}/{run_id}/record.json"]

    def given(self, verb: str, run_id: str) -> list[str]:
        """A run's inputs, which a finished one needs no more, unless it is made again."""
        run = self.run(verb, run_id)
        return [] if self._finished(run) else list(run.inputs)

    def after(self, run_id: str) -> list[str]:
        """What must be there before a training may start, though it does not read it."""
        run = self.run("train", run_id)
        return [] if self._finished(run) else list(run.after)

    def _finished(self, run: Run) -> bool:
        return Path(run.path).exists() and not self.forced()

    def threads(self, verb: str, run_id: str, cores: int) -> int:
        """What a run gets of this machine's cores. Where it computes on GPUs, their share, so that
        no more runs start side by side than there are GPUs for."""
        run, gpus = self.run(verb, run_id), machine.gpus()
        return max(run.threads, cores * min(run.gpus, gpus) // gpus) if gpus else run.threads

    def launcher(self, verb: str, run_id: str) -> str:
        """How a run's command begins. Where it takes several GPUs, a training has a process for
        each, and whatever spreads one model over them is told how many."""
        gpus = self.run(verb, run_id).gpus
        if gpus == 1:
            return "python -m llama_bench"
        if verb == "train":
            processes = f"--standalone --nproc-per-node {gpus}"
            return f"python -m torch.distributed.run {processes} -m llama_bench"
        return f"LLAMA_BENCH_GPUS={gpus} python -m llama_bench"

    def then(self, run_id: str) -> str:
        """The other suites of an evaluation's model, which its process goes on to while nobody has
        begun them, so that imports and loading are paid once. On a cluster each is a job with a
        time limit of its own."""
        asked = self.run("evaluate", run_id)
        others = self._suites[asked.spec.loaded] if self.near() else []
        return " ".join(
            shlex.join(["--then", other.spec.canonical(), other.path, *other.inputs])
            for other in others
            if other is not asked and not self._finished(other)
        )

    @cached_property
    def _suites(self) -> dict[tuple, list[Run]]:
        """The evaluations of each model."""
        suites = defaultdict(list)
        for run in self.runs.values():
            if run.spec.verb == "evaluate":
                suites[run.spec.loaded].append(run)
        return suites

    def records(self, folder: str) -> list[str]:
        """What `collect` waits for: every record; for the partial report those that are there."""
        forecasts = [] if folder.endswith(PARTIAL) else [*self.forecasts]
        return [run.path for run in self._reported(folder)] + forecasts

    def collect_spec(self, folder: str) -> str:
        """The listing of all runs is too long for a command; the configuration makes it again."""
        have = hashlib.sha256("".join(self.records(folder)).encode()).hexdigest()[:8]
        return _json({"config": self.as_written(), "study": folder, "records": have})

    def report_spec(self, folder: str) -> str:
        unfinished = self.unfinished if folder.endswith(PARTIAL) else []
        return _json({"study": folder, "config": self.as_written(), "unfinished": unfinished})

    def listing(self, folder: str) -> dict[str, Any]:
        """The runs, finished or not, with what the study calls them."""
        runs = [
            {"id": run.spec.id, "verb": run.spec.verb, "path": run.path, "labels": run.labels}
            for run in self.runs.values()
        ]
        return {
            "study": folder,
            "runs": runs,
            "config": self.as_written(),
            "forecasts": sorted(str(path) for path in Path(self.folder).glob("forecasts/*.json")),
        }

    def points(self, folder: str, law: str) -> str:
        """The table that a law is fitted to: the ladder, what was trained on repeated text, or the
        ladder with the scores of its tasks."""
        need = LAW_NEEDS[law]
        table = "repetition" if need.unique > 1 else "task_ladder" if need.scores else "ladder"
        return f"{STUDIES}/{folder}/tables/{table}.parquet"

    def forecast(self, forecast: str) -> ForecastSpec:
        """The forecast that a rule's wildcard means. Raises KeyError where this study has none."""
        return self.forecasts[f"{self.folder}/forecasts/{forecast}.json"]

    def forecast_from(self, forecast: str) -> list[str]:
        """The records that a forecast rests on, which a written one needs no more."""
        if Path(f"{self.folder}/forecasts/{forecast}.json").exists():
            return []
        return self.forecast(forecast).records

    def _reported(self, folder: str) -> list[Run]:
        listed = list(self.runs.values())
        if folder.endswith(PARTIAL):
            return [run for run in listed if Path(run.path).exists()]
        return listed

    @property
    def unfinished(self) -> list[str]:
        return [run.path for run in self.runs.values() if not Path(run.path).exists()]

    def as_written(self) -> dict[str, Any]:
        """The configuration as JSON, without what was left to its default."""
        return self.config.model_dump(mode="json", exclude_unset=True)

    @cached_property
    def code_digest(self) -> str:
        """Of everything in derive/: a better plot is drawn again, by the params of its rule."""
        digest = hashlib.sha256()
        for path in sorted((Path(__file__).parent / "derive").rglob("*")):
            if path.suffix in (".py", ".j2", ".css"):
                digest.update(path.read_bytes())
        return digest.hexdigest()[:8]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def load(given: dict[str, Any] | None = None) -> Study:
    """The study that snakemake's `config` asks for; without one, that of config.yaml.

    `file` names another file, and any other key replaces that file's; a `config` that has
    `models` (from --configfile) stands for itself. Raises UserError.
    """
    given, name = dict(given or {}), "config"
    if "models" not in given:
        name = str(given.pop("file", "config.yaml"))
        for key in given:
            if key not in Config.model_fields:
                raise UserError(f"--config: {unknown(key, [*Config.model_fields, 'file'], 'key')}")
        given = {**config_file.read_yaml(Path(name)), **given}
    return Study(config_file.check(given, name))


def listing_of(collect_spec: str) -> str:
    """The JSON listing of runs that a `collect` spec stands for. Raises UserError."""
    try:
        asked = json.loads(collect_spec)
        return _json(Study(config_file.check(asked["config"])).listing(asked["study"]))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"collect: SPEC is not what the workflow passes ({error!r})") from None
