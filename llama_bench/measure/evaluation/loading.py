"""A model to be asked, and its tokenizer: from a run that made it, a folder or the Hub; refused
where it would give nonsense, or run somebody's code, without a word.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llama_bench import records
from llama_bench.measure import model
from llama_bench.measure.evaluation.suite import of_the_network
from llama_bench.measure.probing import quantized
from llama_bench.measure.text import hub
from llama_bench.measure.training import state as states
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec, TrainSpec


def named(spec: EvaluateSpec, source: Path | None) -> tuple[str, str | None]:
    """The folder or repository of the model, and its revision on the Hub.

    `source` is the record of the run that made it or a model's folder; None for a repository on
    the Hub."""
    if source is None:
        return spec.pretrained.repo, spec.pretrained.revision
    return str(source.parent / "checkpoint" if spec.run else source), None


def load(
    spec: EvaluateSpec, source: Path | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model on the fastest device there is, and its tokenizer."""
    where, revision = named(spec, source)
    device = model.device()
    if spec.state and not spec.train:
        raise Refusal("refused", f"{where} has no trunk; state is asked of trainings alone")
    if spec.quantization and (why := quantized.refuses(spec.quantization, device)):
        raise Refusal("refused", why)
    dtype = torch.bfloat16 if spec.quantization else getattr(torch, spec.precision)
    with hub_named(where, revision):
        loaded = model.load(where, revision, dtype, trusted(spec))
        commit = getattr(loaded.config, "_commit_hash", None) if revision else None
        tokenizer = load_tokenizer(where, commit or revision, trusted(spec))
    if spec.state:
        _take_state(loaded, spec.state, source)
    _refuse_misfits(loaded, tokenizer, where)
    return loaded.to(device).eval(), tokenizer


def trusted(spec: EvaluateSpec) -> bool:
    return bool(spec.pretrained and spec.pretrained.trust_remote_code)


@contextmanager
def hub_named(where: str, revision: str | None):
    """A Hub out of reach is an accident that says what is missing."""
    try:
        yield
    except Exception as error:
        if revision is not None and of_the_network(error):
            raise hub.unreachable(f"{where} at {revision}", error) from error
        raise


def load_tokenizer(named, revision: str | None, trusted: bool) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(
            named,
            revision=revision or "main",
            local_files_only=revision is None,
            trust_remote_code=trusted,
        )
    except Exception as error:  # what it raises depends on which file is missing or broken
        if of_the_network(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refusal("refused", f"{named} has no tokenizer that can be loaded: {first}") from error


def _take_state(loaded: PreTrainedModel, which: str, record: Path) -> None:
    """The weights of the trunk where the branch left it, or their running mean."""
    training = TrainSpec.parse(json.dumps(records.read(record).spec))
    state = states.load(record.parent / "trunk.pt", training.trunk)
    weights = state and (state.model if which == "trunk" else state.average)
    if not weights:
        raise Refusal("missing", f"{record.parent.name} kept no {which} weights (trunk.pt)")
    report = loaded.load_state_dict(weights, strict=False)
    own = {name for name, _ in loaded.named_parameters()}  # tied weights are listed once
    lacking = own & set(report.missing_keys) or set(report.unexpected_keys)
    if lacking:
        named = ", ".join(sorted(lacking)[:3])
        raise Refusal("refused", f"{record.parent.name}: its {which} weights do not fit: {named}")


def _refuse_misfits(loaded: PreTrainedModel, tokenizer, named) -> None:
    """A model that would give nonsense without a complaint."""
    rows = loaded.get_input_embeddings().weight.shape[0]
    ids = max(tokenizer.get_vocab().values(), default=-1) + 1
    if ids > rows:
        raise Refusal("refused", f"{named}: its tokenizer has {ids} ids, the model {rows}")
    for name, weight in loaded.named_parameters():
        if not torch.isfinite(weight).all():
            raise Refusal("non-finite", f"{named}: {name} holds numbers that are not finite")
