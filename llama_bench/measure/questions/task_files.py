"""A task as files that lm-eval takes: YAML, its rows, and the few functions that both name.

`datasets`' own loader keeps a cache by absolute path, and takes seconds; so the rows are read by
one small Python file beside them. Nothing in the folder names a place: it can be copied anywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from llama_bench.records import write_text

VERSION = 2  # of the questions; stands beside every score
WHOLE_PROMPTS = "whole_prompts"  # of a task's metadata; evaluation/generation.py reads it

FUNCTIONS = '''"""Reads the rows that lie beside this file; lm-eval calls it from the YAML files."""

import json
import re
from collections import Counter
from pathlib import Path

import datasets


def load(file, **_):
    """The rows of one task as its test split."""
    with open(Path(__file__).parent / file, encoding="utf-8") as lines:
        return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}


def token_f1(references, predictions):
    """Harmonic mean of precision and recall of words and marks (Rajpurkar et al. 2016, 6.1)."""
    wanted, given = (_words(text[0]) for text in (references, predictions))
    shared = sum((wanted & given).values())
    return 2 * shared / (sum(wanted.values()) + sum(given.values())) if shared else 0.0


def _words(text):
    return Counter(re.findall(r"\\w+|[^\\w\\s]", text.lower()))
'''


class Function(str):
    """Written as lm-eval's `!function file.name`."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    Function, lambda dumper, name: dumper.represent_scalar("!function", str(name), style="")
)


@dataclass(frozen=True)
class Metric:
    name: str
    aggregation: str = "mean"
    higher_is_better: bool = True

    @property
    def written(self) -> dict:
        return {
            "metric": Function(f"held_out.{self.name}") if self.name == "token_f1" else self.name,
            "aggregation": self.aggregation,
            "higher_is_better": self.higher_is_better,
        }


@dataclass(frozen=True)
class Kind:
    """One of lm-eval's request types: how its YAML reads, and its metrics, the main one first."""

    metrics: tuple[Metric, ...]
    yaml: dict = field(default_factory=dict)


def generate(tokens: int, *metrics: Metric, until: str = "\n") -> Kind:
    """Greedy text up to the line's end, `tokens` at most; blanks around it do not count."""
    bare = [{"function": "remove_whitespace"}, {"function": "take_first"}]
    asked = {
        "output_type": "generate_until",
        "doc_to_text": "context",
        "doc_to_target": "target",
        "generation_kwargs": {"until": [until], "do_sample": False, "max_gen_toks": tokens},
        "filter_list": [{"name": "none", "filter": bare}],
    }
    return Kind(metrics, asked)


ROLLING = Kind(
    (Metric("bits_per_byte", "bits_per_byte", higher_is_better=False),),
    {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"},
)
CHOICE = Kind(
    (Metric("acc"), Metric("acc_norm")),
    {
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
    },
)
GREEDY = Kind(
    (Metric("acc"),),
    {"output_type": "loglikelihood", "doc_to_text": "context", "doc_to_target": "target"},
)


def write_functions(folder: Path) -> None:
    write_text(folder / "held_out.py", FUNCTIONS)


def write(
    folder: Path, name: str, kind: Kind, description: str, rows: list, chance: float, **told
) -> None:
    """`told` stands in the task's metadata, beside its chance."""
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    write_text(folder / f"{name}.jsonl", text)
    content = {
        "task": name,
        "custom_dataset": Function("held_out.load"),
        "dataset_kwargs": {"file": f"{name}.jsonl"},
        "test_split": "test",
        "num_fewshot": 0,
        **kind.yaml,
        "target_delimiter": "",
        "metric_list": [metric.written for metric in kind.metrics],
        "metadata": {"version": VERSION, "chance": chance, **told},
    }
    written = yaml.dump(content, Dumper=_Dumper, sort_keys=False)
    write_text(folder / f"{name}.yaml", f"# {description}\n{written}")


def remove(folder: Path, name: str) -> None:
    for suffix in (".yaml", ".jsonl"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)
