"""The models that are to become one, as they lie on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

from llama_bench import records
from llama_bench.measure import ensemble_model, lineage
from llama_bench.measure import model as models
from llama_bench.records import Record, Refusal
from llama_bench.specs import FuseSpec
from llama_bench.specs import Member as Named


@dataclass(frozen=True)
class Member:
    """`record` is of the run that made it; None for a model trained elsewhere."""

    named: Named
    name: str
    folder: Path
    ancestors: list[str]
    record: Record | None
    config: PreTrainedConfig

    @property
    def trusted(self) -> bool:
        return bool(self.named.pretrained and self.named.pretrained.trust_remote_code)

    @property
    def is_ensemble(self) -> bool:
        return self.config.model_type == ensemble_model.EnsembleConfig.model_type


def members_of(spec: FuseSpec, inputs: list[Path]) -> list[Member]:
    """With the control last, if there is one. `inputs`: one for each in order, none for those on
    the Hub. Raises Refusal for what is no model."""
    named = (*spec.members, *((spec.control,) if spec.control else ()))
    sources = lineage.sources_of(named, inputs)
    return [_member(*pair) for pair in zip(named, sources, strict=True)]


def _member(named: Named, source: Path | None) -> Member:
    folder = lineage.folder_of(named, source)
    pretrained = named.pretrained
    name = named.run or pretrained.repo or folder.name
    if not (folder / "config.json").is_file():
        raise Refusal("missing", f"{name}: {folder} holds no model (no config.json)")
    if not (folder / "tokenizer.json").is_file():
        reason = f"{name}: {folder} has no tokenizer.json, so that its tokens cannot be compared"
        raise Refusal("refused", reason)
    try:
        trusted = bool(pretrained and pretrained.trust_remote_code)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    except (ValueError, KeyError, OSError) as error:
        raise Refusal("refused", f"{name}: {models.first_line(error)}") from error
    record = None if pretrained else records.read(source)
    return Member(named, name, folder, lineage.ancestors(named, source), record, config)
