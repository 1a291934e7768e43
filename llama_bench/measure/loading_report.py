"""Whether the weights of a model's files are those that its config asks for.

transformers would go on otherwise: with random numbers in place of weights that are not there, and
without the layers that the config does not count.
"""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedModel

from llama_bench.records import Refusal


def check(model: PreTrainedModel, report: dict[str, Any], called: str) -> None:
    """Raises Refusal that names the first weights by which a model's files are not its config's;
    `report` is the `output_loading_info` of `from_pretrained`, `called` what to call the model."""
    shapes = [
        f"{name} ({list(held)}, not {list(asked)})"
        for name, held, asked in sorted(report["mismatched_keys"])
    ]
    for what, names in (
        ("holds weights of another shape than its config asks for", shapes),
        ("lacks weights that its config asks for", sorted(report["missing_keys"])),
        ("holds weights that its config does not ask for", _beyond(model, report)),
    ):
        if names:
            raise Refusal("refused", f"{called} {what}: {', '.join(names[:3])}")


def _beyond(model: PreTrainedModel, report: dict) -> list[str]:
    """What is called like the model's weights but for a layer's number. Other weights that are
    left over, such as tables that newer code makes itself, take nothing from it."""

    def plain(name: str) -> str:
        return re.sub(r"\d+", "#", name.removeprefix(f"{model.base_model_prefix}."))

    known = {plain(name) for name in model.state_dict()}
    return sorted(name for name in report["unexpected_keys"] if plain(name) in known)
