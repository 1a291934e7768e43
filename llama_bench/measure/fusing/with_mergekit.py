"""mergekit's methods (Goddard et al. 2024, arXiv 2403.13257) through its own configuration.

The configuration calls the members member_1, member_2, ... in their order; paths are filled in
here, so that what is asked does not depend on where a model lies. mergekit is an optional extra and
runs as its own command.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from llama_bench.measure.fusing import averaging
from llama_bench.measure.fusing.members import Member
from llama_bench.records import Refusal

_NAME = re.compile(r"member_([1-9]\d*)")


def refuse_unrunnable(configuration: dict[str, Any], members: list[Member]) -> None:
    """Raises Refusal where mergekit is not installed, or a model is named that is no member."""
    if importlib.util.find_spec("mergekit") is None:
        raise Refusal("refused", "mergekit is not installed; pip install 'llama-bench[mergekit]'")
    with_paths(configuration, members)


def with_paths(configuration: dict[str, Any], members: list[Member]) -> dict[str, Any]:
    """The same with folders for the members' names. Raises Refusal for another model."""

    def filled(value: Any, key: str | None) -> Any:
        if isinstance(value, dict):
            return {name: filled(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [filled(item, None) for item in value]
        if key in ("model", "base_model") and isinstance(value, str):
            return str(_folder(value, members))
        return value

    return filled(configuration, None)


def _folder(name: str, members: list[Member]) -> Path:
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) > len(members):
        raise Refusal(
            "refused",
            f"configuration: model {name!r} is none of the members; call them "
            f"member_1 to member_{len(members)}, in the order in which the fusion names them",
        )
    return members[int(match[1]) - 1].folder.resolve()


def write(configuration: dict[str, Any], members: list[Member], target: Path) -> None:
    """A Hugging Face folder as mergekit writes it, with the first member's tokenizer.

    Raises Refusal with mergekit's own words where it gives up.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "mergekit.yaml"  # JSON is YAML
        asked.write_text(json.dumps(with_paths(configuration, members)))
        words = [sys.executable, "-m", "mergekit.scripts.run_yaml", str(asked), str(target)]
        words += ["--no-copy-tokenizer", "--no-write-model-card", "--quiet"]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
    print(ended.stdout, ended.stderr, file=sys.stderr)
    if ended.returncode:
        raise Refusal("refused", f"mergekit: {_complaint(ended)}")
    (target / "mergekit_config.yml").unlink(missing_ok=True)  # names folders of this machine
    averaging.copy_all_but_weights(members[0].folder, target, but=("config.json",))


def _complaint(ended: subprocess.CompletedProcess) -> str:
    """The error that it ended with, in one line: a wrong key is told in the lines after it."""
    lines = ended.stderr.strip().splitlines()
    errors = [at for at, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    said = lines[errors[-1] : errors[-1] + 3] if errors else lines[-1:]
    return " ".join(line.strip() for line in said) or f"it ended with {ended.returncode}"
