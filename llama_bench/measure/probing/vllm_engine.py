"""Prefill and decode by a vLLM server, under the definitions of the other engines.

`prefill` asks for one token after prompts that the server has not seen, and takes the time of the
answer: HTTP and one draw are in it. `decode` asks again for prompts whose keys and values the
server still holds (prefix caching), and takes the time from every sequence's first token to the
last. Memory is the server's own affair: it reserves most of the GPU in advance.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from llama_bench.measure.probing import phases, probed_model, vllm_server
from llama_bench.records import Refusal
from llama_bench.specs import ProbeSpec

Draw = Callable[[int, int], list[list[int]]]
_STREAMS = 5  # that are asked for before one without merged first tokens is given up
_BLOCK = 256  # tokens, at least what a block of a server's cache holds


class Prefill:
    kv_bytes = None

    def __init__(self, server: vllm_server.Server, draw: Draw, batch: int, context: int):
        self.server, self.tokens = server, batch * context
        self._draw, self._shape = draw, (batch, context)

    def prepare(self) -> None:
        self.prompts = self._draw(*self._shape)

    def timed(self) -> float:
        return self.server.complete(self.prompts, 1)


class Decode:
    kv_bytes = None

    def __init__(self, server: vllm_server.Server, draw: Draw, batch: int, context: int):
        self.server, self.steps = server, phases.window(context)
        self.tokens = batch * self.steps
        filled = max(1, context - self.steps)  # a server needs a token to begin with
        self.prompts = draw(batch, filled)
        server.complete(self.prompts, 1)

    def prepare(self) -> None:
        pass

    def timed(self) -> float:
        for _ in range(_STREAMS):
            elapsed = self.server.stream(self.prompts, self.steps + 1)
            if elapsed is not None:
                return elapsed
        reason = f"vllm sent a sequence's first tokens in one event, {_STREAMS} times in a row"
        raise Refusal("refused", f"{reason}: the time from the first cannot be told")


class Load:
    """A server started, and its first token; its weights lie on disk."""

    kv_bytes = None

    def __init__(
        self,
        spec: ProbeSpec,
        config: PreTrainedConfig,
        source: str,
        log: Path,
        cell: tuple[int, int],
    ):
        given = arguments(spec, config, source, False)
        self._server = vllm_server.Server(given, log, _threads(spec))
        self.tokens = cell[0] * cell[1]
        self._prompts = _drawing(config.vocab_size)(*cell)
        self.parts: dict[str, list[float]] = {"load_seconds": [], "first_token_seconds": []}

    def prepare(self) -> None:
        pass

    def timed(self) -> float:
        began = time.perf_counter()
        with self._server:
            self.parts["load_seconds"].append(time.perf_counter() - began)
            self.parts["first_token_seconds"].append(self._server.complete(self._prompts, 1))
        return self.parts["load_seconds"][-1] + self.parts["first_token_seconds"][-1]


class Engine:
    """The server of one model, for a whole grid."""

    weight_bytes = None
    builds_dearly = False

    def __init__(self, spec: ProbeSpec, config: PreTrainedConfig, source: str, folder: Path):
        self._draw = _drawing(config.vocab_size)
        dummy = probed_model.is_drawn(spec)
        given = arguments(spec, config, source, dummy)
        self._server = vllm_server.Server(given, folder / "vllm.log", _threads(spec)).start()

    def work(self, phase: str, batch: int, context: int) -> Prefill | Decode:
        kinds = {"prefill": Prefill, "decode": Decode}
        if phase not in kinds:
            raise Refusal("refused", f"vllm does not {phase}; the transformers engine does")
        return kinds[phase](self._server, self._draw, batch, context)

    def try_out(self, phase: str, batch: int, context: int) -> None:
        raise Refusal("refused", "a vllm server takes any batch, and divides it as it sees fit")

    def sampling(self, batch: int) -> None:
        return None  # is in its times

    def clean(self) -> None:
        pass

    def close(self) -> None:
        self._server.close()


def _drawing(vocab_size: int) -> Draw:
    """Prompts of (batch, context) random tokens, none of which comes a second time."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randint(vocab_size, shape, generator=generator).tolist()


def arguments(spec: ProbeSpec, config: PreTrainedConfig, source: str, dummy: bool) -> list[str]:
    """Of the server: the asked precision, room for the largest cell and one token more; `dummy`
    weights are drawn by itself."""
    longest = getattr(config, "max_position_embeddings", None)
    room = max(spec.contexts) + 1
    words = ["--model", source, "--served-model-name", "probed", "--dtype", spec.precision]
    words += ["--max-model-len", str(min(room, longest) if longest else room)]
    words += ["--max-num-seqs", str(max(spec.batches)), "--enable-prefix-caching"]
    if spec.device == "cpu":
        words += ["--kv-cache-memory-bytes", str(_cache_bytes(spec, config))]
    if dummy:
        words += ["--load-format", "dummy"]
    elif spec.pretrained and spec.pretrained.repo:
        words += ["--revision", spec.pretrained.revision]
    if spec.pretrained and spec.pretrained.trust_remote_code:
        words += ["--trust-remote-code"]
    return words


def _cache_bytes(spec: ProbeSpec, config: PreTrainedConfig) -> int:
    """Twice the largest cell, in whole blocks: one that is asked for, and one that is kept. Left to
    itself, a server takes nine tenths of the machine's memory, and does not start beside others."""
    room = -(-(max(spec.contexts) + 1) // _BLOCK) * _BLOCK
    dtype = probed_model.dtype_of(spec.precision)
    return 2 * probed_model.cache_bytes(config, max(spec.batches) * room, dtype)


def _threads(spec: ProbeSpec) -> int | None:
    return torch.get_num_threads() if spec.device == "cpu" else None


def described(config: PreTrainedConfig, folder: Path) -> str:
    """`folder` with a configuration, and a tokenizer of as many words, since a server wants one."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        config.architectures = config.architectures or ["LlamaForCausalLM"]
        config.save_pretrained(folder)
    words = {f" {number}": number for number in range(config.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token=" 0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return str(folder)
