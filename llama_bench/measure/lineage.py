"""What a model goes back to: the trunk, trainings and fine-tunings that its weights passed through.

Models with an ancestor in common lie in one basin of the loss, where the mean of weights is a
model; the mean of strangers is none (Frankle et al. 2020, arXiv 1912.05671; Neyshabur et al. 2020,
arXiv 2008.11687). An ancestor is the id of a run, the digest of a trunk, what names a pretrained
model, or what the study says that one is fine-tuned from.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure.text import hub
from llama_bench.records import Refusal
from llama_bench.specs import Member, Pretrained, TrainSpec


def ancestors(member: Member, source: Path | None) -> list[str]:
    """The oldest first, the model itself last. `source`: its run's record, a pretrained model's
    folder, or None for one on the Hub."""
    if member.pretrained:
        return list(dict.fromkeys(filter(None, [member.base, member.pretrained.id])))
    record = records.read(source)
    if record.verb == "train":
        trunk = TrainSpec.parse(json.dumps(record.spec)).trunk
        return [f"trunk-{hashlib.sha256(trunk.encode()).hexdigest()[:8]}", record.id]
    return list(dict.fromkeys([*record.result["ancestors"], record.id]))


def shared(families: list[list[str]]) -> list[str]:
    """The ancestors that all have, in the order of the first."""
    return [name for name in families[0] if all(name in family for family in families[1:])]


def folder_of(member: Member, source: Path | None) -> Path:
    """Where a model's files lie; those of one on the Hub are fetched."""
    if source is None:
        return _fetched(member.pretrained)
    return source if member.pretrained else source.parent / "checkpoint"


def _fetched(pretrained: Pretrained) -> Path:
    from llama_bench.measure import model

    repo, revision = pretrained.repo, pretrained.revision
    try:
        return model.fetched(repo, revision, bool(pretrained.trust_remote_code))
    except Refusal:
        raise
    except (OSError, RuntimeError) as error:
        raise hub.unreachable(f"{repo} at {revision}", error) from error


def sources_of(members: tuple[Member, ...], inputs: list[Path]) -> list[Path | None]:
    """The input of each member, in order: none is given for what comes from the Hub."""
    rest = list(inputs)
    wanted = [not (member.pretrained and member.pretrained.repo) for member in members]
    if sum(wanted) != len(rest):
        raise UserError(f"{sum(wanted)} members have an input, but {len(rest)} are given")
    return [rest.pop(0) if is_wanted else None for is_wanted in wanted]
