"""A model to be asked, and its tokenizer: from a run that made it, a folder or the Hub; refused
where it would give nonsense, or run somebody's code, without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llama_bench import records
from llama_bench.measure import model
from llama_bench.measure.evaluation.suite import of_the_network
from llama_bench.measure.job import Failure
from llama_bench.measure.probing import quantized
from llama_bench.measure.text import hub
from llama_bench.measure.training import state as states
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec, TrainSpec


class Found(NamedTuple):
    """Where a model's files lie, at which commit if it is from the Hub, and what it is called."""

    called: str
    folder: Path
    commit: str | None
    trusted: bool


def find(spec: EvaluateSpec, source: Path | None) -> Found:
    """`source` is the record of the run that made the model, or a model's folder; None for a
    repository on the Hub, whose files are fetched. Raises Refusal where there is no such model,
    Failure where the Hub is out of reach."""
    trusted = bool(spec.pretrained and spec.pretrained.trust_remote_code)
    if source is not None:
        folder = source.parent / "checkpoint" if spec.run else source
        return Found(str(folder), folder, None, trusted)
    repo, revision = spec.pretrained.repo, spec.pretrained.revision
    with _reached(f"{repo} at {revision}"):
        folder = model.fetched(repo, revision, trusted)
    return Found(repo, folder, folder.name, trusted)


@contextmanager
def _reached(what: str) -> Iterator[None]:
    """A Hub out of reach is an accident that says what is missing."""
    try:
        yield
    except Exception as error:
        if of_the_network(error):
            raise hub.unreachable(what, error) from error
        raise


def load(
    spec: EvaluateSpec, source: Path | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Found]:
    """The model on the fastest device there is, or spread over several GPUs, and its tokenizer."""
    device, gpus = model.device(), model.gpus()
    if spec.quantization and (why := quantized.refuses(spec.quantization, device)):
        raise Refusal("refused", why)
    if spec.quantization and gpus > 1:
        raise Refusal("refused", f"{spec.quantization} weights are asked on one GPU; set gpus: 1")
    found = find(spec, source)
    if spec.state and not spec.train:
        raise Refusal("refused", f"{found.called} has no trunk; state is asked of trainings alone")
    dtype = torch.bfloat16 if spec.quantization else getattr(torch, spec.precision)
    placed = "balanced" if gpus > 1 else None
    with _reached(found.called):
        loaded = model.load(found.folder, dtype, found.trusted, found.called, placed)
    tokenizer = load_tokenizer(found)
    if spec.state:
        _take_state(loaded, spec.state, source)
    refuse_small_vocabulary(loaded, tokenizer, found.called)
    if placed and any(weight.device.type != "cuda" for weight in loaded.parameters()):
        reason = f"{found.called} does not fit on {gpus} GPUs; give it more"
        raise Refusal("out-of-memory", reason)
    _refuse_not_finite(loaded, found.called)
    return (loaded if placed else loaded.to(device)).eval(), tokenizer, found


def outline(spec: EvaluateSpec, source: Path | None):
    """As `load`, of the model alone what can be told without its weights."""
    found = find(spec, source)
    with _reached(found.called):
        drawn = model.outline(found.folder, found.trusted, found.called)
    tokenizer = load_tokenizer(found)
    refuse_small_vocabulary(drawn, tokenizer, found.called)
    return drawn, tokenizer, found


def load_tokenizer(found: Found) -> PreTrainedTokenizerBase:
    try:
        with _reached(found.called):
            tokenizer = AutoTokenizer.from_pretrained(
                found.folder,
                local_files_only=not found.trusted,
                trust_remote_code=found.trusted,
            )
    except Failure:
        raise
    except Exception as error:  # what it raises depends on which file is missing or broken
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = f"{found.called} has no tokenizer that can be loaded: {first}"
        raise Refusal("refused", reason) from error
    tokenizer.name_or_path = found.called
    return tokenizer


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


def refuse_small_vocabulary(loaded: PreTrainedModel, tokenizer, called: str) -> None:
    """A tokenizer with more ids than the model would give nonsense without a complaint."""
    rows = loaded.get_input_embeddings().weight.shape[0]
    ids = max(tokenizer.get_vocab().values(), default=-1) + 1
    if ids > rows:
        raise Refusal("refused", f"{called}: its tokenizer has {ids} ids, the model {rows}")


def _refuse_not_finite(loaded: PreTrainedModel, called: str) -> None:
    for name, weight in loaded.named_parameters():
        if not torch.isfinite(weight).all():
            raise Refusal("non-finite", f"{called}: {name} holds numbers that are not finite")
