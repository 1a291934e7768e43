"""config.yaml: read, checked as a whole, and described to editors.

What can be known to be wrong before any job starts is refused here, with one line for each wrong
key. workflow/config.schema.json is generated from these types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator, model_validator

from llama_bench import sources
from llama_bench.fields import Base, Name, UserError, readable, unknown
from llama_bench.sections import (
    HELD_OUT_TASKS,
    LAW_NEEDS,
    Data,
    Evaluate,
    Fit,
    HoldOut,
    Models,
    Probe,
    Train,
)

PARTIAL = "-partial"  # results/studies/<study>-partial holds the report of what is there


class Config(Base):
    """A whole study. Every key has a default but `models`."""

    study: Name = "default"
    data: Data = Data()
    models: Models
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    probe: Probe = Probe()
    hold_out: HoldOut = HoldOut()
    fit: Fit = Fit()

    @field_validator("study")
    @classmethod
    def _not_reserved(cls, name):
        if name.endswith(PARTIAL):
            raise ValueError(f"{name!r}: names ending in {PARTIAL!r} are kept for partial reports")
        return name

    @model_validator(mode="after")
    def _holds_together(self):
        self._check_corpus()
        self._check_tasks()
        self._check_laws()
        self._check_hold_out()
        return self

    def _check_corpus(self):
        """A token is at least a byte, so a part of fewer bytes than a window holds none."""
        paths = sources.corpus_files(self.data.corpus)
        if not paths and self.data.max_bytes is None:
            return
        plain = [p for p in paths if p.suffix != ".parquet"]
        if len(plain) < len(paths):
            return
        size = min(sum(p.stat().st_size for p in plain) or 2**62, self.data.max_bytes or 2**62)
        if self.models.train and size * self.data.held_out <= self.train.context:
            raise ValueError(
                f"train.context: {self.train.context} tokens are longer than the held-out part of "
                f"the corpus ({size} bytes, {self.data.held_out:.0%} of them held out); "
                "shorten the context or give more text"
            )

    def _check_tasks(self):
        for suite, wanted in self.evaluate.suites.items():
            known = {*HELD_OUT_TASKS}
            if wanted.include:
                known |= sources.tasks_in(Path(wanted.include))
            strange = [name for name in wanted.names if name not in known]
            if any(not name.startswith("heldout_") for name in strange):
                known |= sources.lm_eval_tasks()
            for name in strange:
                if name not in known:
                    message = unknown(name, sorted(known), "task")
                    raise ValueError(f"evaluate.suites.{suite}.tasks: {message}")

    def _check_laws(self):
        have = (
            len(self.models.train) * len(self.train.budgets) * len(self.train.seeds),
            len({model.shape.size for model in self.models.train}),
            len(self.train.budgets),
        )
        for law in self.fit.laws or []:
            need = LAW_NEEDS[law]
            if any(h < n for h, n in zip(have, need, strict=True)):
                raise ValueError(
                    f"fit.laws: {law} needs at least {need[0]} runs of {need[1]} sizes and "
                    f"{need[2]} budgets; this study has {have[0]} of {have[1]} and {have[2]}. "
                    "Add sizes or budgets, or leave the law out"
                )

    def _check_hold_out(self):
        labels = [model.label for model in self.models.train]
        for name in self.hold_out.models:
            if name not in labels:
                raise ValueError(f"hold_out.models: {unknown(name, labels, 'model')}")
        for budget in self.hold_out.budgets:
            if budget not in self.train.budgets:
                known = [str(budget) for budget in self.train.budgets]
                raise ValueError(f"hold_out.budgets: {unknown(budget, known, 'budget')}")
        kept = set(labels) - set(self.hold_out.models)
        budgets = set(self.train.budgets) - set(self.hold_out.budgets)
        if labels and not (kept and budgets):
            raise ValueError("hold_out: holds out every run; leave some to forecast from")

    @property
    def laws(self) -> list[str]:
        """What is asked for; or, where nothing is, what the study has enough runs for."""
        if self.fit.laws is not None:
            return self.fit.laws
        for law in ("chinchilla", "kaplan"):
            try:
                self.model_copy(update={"fit": Fit(laws=[law])})._check_laws()
            except ValueError:
                continue
            return [law]
        return []


def check(given: dict[str, Any]) -> Config:
    """A parsed configuration as types. Raises UserError, a line for each wrong key."""
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        raise readable(error, "config") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's keys. Raises UserError: not there, no YAML, or a key that stands twice."""
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_unique_keys())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: should hold keys such as study:, data: and models:")
    return content


def _unique_keys():
    """YAML's own loader keeps the last of two equal keys in silence; a size would be lost."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def write_schema(path: Path) -> None:
    """The JSON schema of config.yaml, by which editors complete and check it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= Config.model_json_schema(mode="validation")
    path.write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n", encoding="utf-8")
