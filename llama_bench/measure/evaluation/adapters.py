"""The model of a spec, ready to be asked: in this process, or behind a vLLM server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lm_eval.models.utils import resolve_max_length
from transformers import AutoConfig, AutoModelForCausalLM

from llama_bench.measure import model
from llama_bench.measure.ensemble_model import EnsembleConfig
from llama_bench.measure.evaluation import loading, served_lm
from llama_bench.measure.evaluation.answering import AnsweringLM
from llama_bench.measure.evaluation.lm import CausalLM
from llama_bench.measure.evaluation.served_lm import ServedLM
from llama_bench.measure.probing import quantized, vllm_server
from llama_bench.records import Refusal
from llama_bench.specs import EvaluateSpec


@contextmanager
def opened(
    spec: EvaluateSpec, source: Path | None, folder: Path
) -> Iterator[tuple[AnsweringLM, dict[str, int], dict]]:
    """The adapter, the counts of parameters, and what was really loaded; `folder` is for logs."""
    open_it = _served if spec.engine == "vllm" else _in_this_process
    with open_it(spec, source, folder) as (lm, counts, about):
        where, revision = loading.named(spec, source)
        yield (
            lm,
            counts,
            {
                "repo": where if revision else None,
                "path": None if revision else where,
                "bos": spec.bos or "once",
                "quantization": spec.quantization,
                "engine": spec.engine or "transformers",
                **about,
            },
        )


@contextmanager
def _in_this_process(spec: EvaluateSpec, source: Path | None, folder: Path):
    loaded, tokenizer = loading.load(spec, source)
    counts = model.count(loaded)
    if spec.quantization:
        quantized.shrink(loaded, spec.quantization)
    lm = CausalLM(loaded, tokenizer, spec.bos, spec.generation)
    about = {
        "commit": _commit(loaded.config, spec),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "context": lm.window,
    }
    yield lm, counts, about


@contextmanager
def _served(spec: EvaluateSpec, source: Path | None, folder: Path):
    """Refuses before anything is loaded what a server cannot do."""
    vllm_server.version()
    for key in ("state", "quantization"):
        if getattr(spec, key):
            reason = f"vllm serves a checkpoint as it is; {key} needs engine: transformers"
            raise Refusal("refused", reason)
    where, revision = loading.named(spec, source)
    trusted = loading.trusted(spec)
    with loading.hub_named(where, revision):
        config = AutoConfig.from_pretrained(
            where, revision=revision or "main", trust_remote_code=trusted
        )
        tokenizer = loading.load_tokenizer(where, revision, trusted)
    if isinstance(config, EnsembleConfig):
        raise Refusal("refused", "vllm serves one model, no ensemble; use engine: transformers")
    with torch.device("meta"):
        counts = model.count(AutoModelForCausalLM.from_config(config, trust_remote_code=trusted))
    length = resolve_max_length(config, tokenizer)
    given = served_lm.arguments(spec, where, length)
    with vllm_server.Server(given, folder / "vllm.log") as server:
        about = {"commit": _commit(config, spec), "dtype": spec.precision, "context": length}
        yield ServedLM(server, tokenizer, length, spec), counts, about


def _commit(config, spec: EvaluateSpec) -> str | None:
    of_hub = spec.pretrained and spec.pretrained.repo
    return getattr(config, "_commit_hash", None) if of_hub else None
