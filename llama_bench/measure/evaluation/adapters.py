"""The model of a spec, ready to be asked: in this process, or behind a vLLM server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lm_eval.models.utils import resolve_max_length

from llama_bench.measure import model
from llama_bench.measure.ensemble_model import EnsembleForCausalLM
from llama_bench.measure.evaluation import loading, served_lm
from llama_bench.measure.evaluation.answering import AnsweringLM
from llama_bench.measure.evaluation.lm import CausalLM
from llama_bench.measure.evaluation.served_lm import ServedLM
from llama_bench.measure.probing import quantized, vllm_server
from llama_bench.records import Refusal
from llama_bench.sections.generation import not_served
from llama_bench.specs import EvaluateSpec


@contextmanager
def opened(
    spec: EvaluateSpec, source: Path | None, folder: Path
) -> Iterator[tuple[AnsweringLM, dict[str, int], dict]]:
    """The adapter, the counts of parameters, and what was really loaded; `folder` is for logs."""
    open_it = _served if spec.engine == "vllm" else _in_this_process
    with open_it(spec, source, folder) as (lm, counts, found, about):
        yield (
            lm,
            counts,
            {
                "repo": found.called if found.commit else None,
                "path": None if found.commit else found.called,
                "commit": found.commit,
                "bos": spec.bos or "once",
                "quantization": spec.quantization,
                "engine": spec.engine or "transformers",
                **about,
            },
        )


@contextmanager
def _in_this_process(spec: EvaluateSpec, source: Path | None, folder: Path):
    loaded, tokenizer, found = loading.load(spec, source)
    counts = model.count(loaded)
    if spec.quantization:
        quantized.shrink(loaded, spec.quantization)
    lm = CausalLM(loaded, tokenizer, spec.bos, spec.generation, spec.batch)
    about = {
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "context": lm.window,
        "devices": len({weight.device for weight in loaded.parameters()}),
    }
    yield lm, counts, found, about


@contextmanager
def _served(spec: EvaluateSpec, source: Path | None, folder: Path):
    """Refuses before the server is started what it cannot do."""
    vllm_server.version()
    for key in ("state", "quantization"):
        if getattr(spec, key):
            reason = f"vllm serves a checkpoint as it is; {key} needs engine: transformers"
            raise Refusal("refused", reason)
    if lacking := not_served(spec.generation or {}):
        reason = f"vllm does not do {', '.join(lacking)} (generation); use engine: transformers"
        raise Refusal("refused", reason)
    drawn, tokenizer, found = loading.outline(spec, source)
    if isinstance(drawn, EnsembleForCausalLM):
        raise Refusal("refused", "vllm serves one model, no ensemble; use engine: transformers")
    counts, gpus = model.count(drawn), model.gpus()
    length = resolve_max_length(drawn.config, tokenizer)
    given = served_lm.arguments(found, spec.precision, length, gpus)
    with vllm_server.Server(given, folder / "vllm.log") as server:
        about = {"dtype": spec.precision, "context": length, "devices": gpus}
        yield ServedLM(server, tokenizer, length, spec), counts, found, about
