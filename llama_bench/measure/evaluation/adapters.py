"""The model of a spec, ready to be asked: in this process, or behind a vLLM server.

It is loaded once for all suites that a process asks of it: what loading it takes is often more than
the questions do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Opened:
    """A model that is there; `adapter` asks it in a spec's way."""

    found: loading.Found
    parameters: dict[str, int]
    about: dict[str, Any]
    adapter: Callable[[EvaluateSpec], AnsweringLM]

    def loaded(self, spec: EvaluateSpec) -> dict[str, Any]:
        """What was really loaded, and how it was asked."""
        return {
            "repo": self.found.called if self.found.commit else None,
            "path": None if self.found.commit else self.found.called,
            "commit": self.found.commit,
            "bos": spec.bos or "once",
            "quantization": spec.quantization,
            "engine": spec.engine or "transformers",
            **self.about,
        }


class Last:
    """The model that was asked last, which stays for another suite of it if it `stays`."""

    def __init__(self):
        self._stack, self._of, self.stays = ExitStack(), None, False

    def opened(self, spec: EvaluateSpec, source: Path | None, folder: Path) -> Opened:
        """`folder` is for logs. Raises Refusal where there is no such model, or it cannot be asked
        in this way."""
        of = (spec.loaded, source)
        if self._of != of:
            self._close()
            open_it = _served if spec.engine == "vllm" else _in_this_process
            self._opened = self._stack.enter_context(open_it(spec, source, folder))
            self._of = of
        return self._opened

    def leave(self) -> None:
        if not self.stays:
            self._close()

    def _close(self) -> None:
        self._of = self._opened = None
        self._stack.close()


@contextmanager
def _in_this_process(spec: EvaluateSpec, source: Path | None, _: Path) -> Iterator[Opened]:
    loaded, tokenizer, found = loading.load(spec, source)
    counts = model.count(loaded)
    if spec.quantization:
        quantized.shrink(loaded, spec.quantization)
    about = {
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "context": resolve_max_length(loaded.config, tokenizer),
        "devices": len({weight.device for weight in loaded.parameters()}),
    }

    def adapter(asked: EvaluateSpec) -> CausalLM:
        return CausalLM(loaded, tokenizer, asked.bos, asked.generation, asked.batch)

    yield Opened(found, counts, about, adapter)


@contextmanager
def _served(spec: EvaluateSpec, source: Path | None, folder: Path) -> Iterator[Opened]:
    """Refuses before the server is started what it cannot do."""
    vllm_server.version()
    for key in ("state", "quantization"):
        if getattr(spec, key):
            reason = f"vllm serves a checkpoint as it is; {key} needs engine: transformers"
            raise Refusal("refused", reason)
    _refuse_not_served(spec)
    drawn, tokenizer, found = loading.outline(spec, source)
    if isinstance(drawn, EnsembleForCausalLM):
        raise Refusal("refused", "vllm serves one model, no ensemble; use engine: transformers")
    counts, gpus = model.count(drawn), model.gpus()
    length = resolve_max_length(drawn.config, tokenizer)
    given = served_lm.arguments(found, spec.precision, length, gpus)
    with vllm_server.Server(given, folder / "vllm.log") as server:
        about = {"dtype": spec.precision, "context": length, "devices": gpus}

        def adapter(asked: EvaluateSpec) -> ServedLM:
            _refuse_not_served(asked)
            return ServedLM(server, tokenizer, length, asked)

        yield Opened(found, counts, about, adapter)


def _refuse_not_served(spec: EvaluateSpec) -> None:
    if lacking := not_served(spec.generation or {}):
        reason = f"vllm does not do {', '.join(lacking)} (generation); use engine: transformers"
        raise Refusal("refused", reason)
