"""A model behind a vLLM server as lm-eval's `LM`: log-likelihoods of prompts, and greedy or drawn
text.

vLLM tells the log-likelihood of every token of a prompt, and its rank (`prompt_logprobs`), if one
more token is asked for: a text has two tokens less room here than in a model of this process. The
context that choices share is computed once by the server's own prefix cache.
"""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from llama_bench.measure.evaluation.answering import AnsweringLM
from llama_bench.measure.evaluation.loading import Found
from llama_bench.measure.evaluation.packing import Scored
from llama_bench.measure.evaluation.writing import Texts
from llama_bench.measure.probing.vllm_server import Server
from llama_bench.records import Refusal
from llama_bench.sections.generation import not_served
from llama_bench.specs import EvaluateSpec

AT_ONCE = 256  # prompts of one request; the server batches them as it sees fit


class ServedLM(AnsweringLM):
    """`length`: the tokens that the server has room for, prompt and answer together."""

    def __init__(
        self,
        server: Server,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        spec: EvaluateSpec,
    ):
        most_rows = spec.batch or AT_ONCE
        super().__init__(tokenizer, length - 2, spec.bos, spec.generation, most_rows)
        self.server, self._seed = server, spec.seed

    def score(self, asked: list[Scored]) -> Iterator[tuple[int, float, bool]]:
        for first in range(0, len(asked), self.most_rows):
            part = asked[first : first + self.most_rows]
            told = self._likelihoods([ids for _, ids, _ in part])
            for (number, ids, start), likelihoods in zip(part, told, strict=True):
                scored = [likelihoods[place][str(ids[place])] for place in range(start, len(ids))]
                total = sum(each["logprob"] for each in scored)
                yield number, total, all(each["rank"] == 1 for each in scored)
            self.progress(first + len(part), len(asked))

    def _likelihoods(self, prompts: list[list[int]]) -> list[list[dict]]:
        asked = {"prompt": prompts, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        choices = self.server.ask(asked)["choices"]
        told = [choice["prompt_logprobs"] for choice in sorted(choices, key=lambda c: c["index"])]
        # JSON has no NaN: vLLM answers with null, or refuses
        if any(each["logprob"] is None for one in told for at in one[1:] for each in at.values()):
            raise Refusal("non-finite", "the model's log-likelihoods are not finite")
        return told

    def write(self, prompts: list[list[int]], new: int, stops: list[str], **settings) -> Texts:
        """Raises ValueError for a setting that the server would leave undone."""
        if lacking := not_served(settings):
            raise ValueError(f"vllm does not do {', '.join(lacking)}; use engine: transformers")
        drawn = settings.pop("do_sample", False)
        asked = {
            "prompt": prompts,
            "max_tokens": new,
            "stop": stops or None,
            "seed": self._seed,
            **settings,
            "temperature": settings.get("temperature", 1.0) if drawn else 0,
        }
        if asked.get("top_k") == 0:  # all tokens, which its first releases said with -1 alone
            asked["top_k"] = -1
        choices = sorted(self.server.ask(asked)["choices"], key=lambda choice: choice["index"])
        return [(choice["text"], choice.get("finish_reason") == "length") for choice in choices]

    def prompt_batches(self, numbers: list[int], prompts: list, new: int) -> Iterator[list[int]]:
        many = self.most_rows
        return (numbers[first : first + many] for first in range(0, len(numbers), many))


def arguments(found: Found, precision: str, length: int, gpus: int) -> list[str]:
    """Of the server: the asked weights in the asked precision, and never a pickle."""
    words = ["--model", str(found.folder), "--served-model-name", "probed", "--dtype", precision]
    words += ["--load-format", "safetensors"]
    words += ["--max-model-len", str(length), "--enable-prefix-caching"]
    words += ["--tensor-parallel-size", str(gpus)] if gpus > 1 else []
    words += ["--trust-remote-code"] if found.trusted else []
    return words
