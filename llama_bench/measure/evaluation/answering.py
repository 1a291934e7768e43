"""What lm-eval asks of a model, answered through a few operations that a model's adapter provides.

lm-eval asks in text; here it becomes token ids (encoding.py), and what came of it is noted
(remarks.py). One request that cannot be scored (it encodes to nothing, or is longer than the
window) must not end the run: it is scored as impossible and remarked upon.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedTokenizerBase

from llama_bench.measure.evaluation import chat
from llama_bench.measure.evaluation.encoding import Encoding
from llama_bench.measure.evaluation.generation import continue_text, merged
from llama_bench.measure.evaluation.halving import in_halves
from llama_bench.measure.evaluation.packing import Scored
from llama_bench.measure.evaluation.remarks import Remarks
from llama_bench.measure.evaluation.writing import Texts

IMPOSSIBLE = (-math.inf, False)


class AnsweringLM(LM):
    """Log-likelihoods and generated text of one model.

    `remarks` tell of requests that could not be scored as they stood; `progress(done, of)` hears
    of every pass. `settings` replace the tasks' own settings of generation; `most_rows` are what a
    pass may hold, None for as many as fit. `whole_prompts`: whether the task that is asked wants
    its prompts cut no more than they must be (generation.py).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        window: int,
        bos: str | None = None,
        settings: dict | None = None,
        most_rows: int | None = None,
    ):
        super().__init__()
        self.tokenizer, self.settings, self.most_rows = tokenizer, settings or {}, most_rows
        self.encoding = Encoding(tokenizer, window, bos)
        self.window = window
        self.progress = lambda done, of: None
        self.whole_prompts = False
        self.remarks = Remarks()

    @abstractmethod
    def score(self, asked: list[Scored]) -> Iterator[tuple[int, float, bool]]:
        """(request, log-likelihood in nats, greedy) of every sequence, in any order."""

    @abstractmethod
    def write(self, prompts: list[list[int]], new: int, stops: list[str], **settings) -> Texts:
        """At most `new` tokens after each prompt, as text, the stop string still in it, and whether
        `new` tokens were not enough for it."""

    @abstractmethod
    def prompt_batches(self, numbers: list[int], prompts: list, new: int) -> Iterator[list[int]]:
        """The numbers of the prompts, longest first, in parts that are written at once, with as
        many as `new` tokens each."""

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt=True) -> str:
        return chat.rendered(self.tokenizer, chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list:
        """(log-likelihood in nats, whether it is the greedy answer) of each continuation."""
        pairs = self.encoding.pairs([request.args[:2] for request in requests])
        asked, answers = [], [IMPOSSIBLE] * len(requests)
        for number, (request, pair) in enumerate(zip(requests, pairs, strict=True)):
            self.remarks.note(request, pair)
            if pair.ids:
                asked.append((number, pair.ids, pair.start))
        for number, total, greedy in self.score(asked):
            answers[number] = (total, greedy)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list:
        """Log-likelihood in nats of each whole text, in windows that overlap by one token."""
        texts = self.encoding.rolling([request.args[0] for request in requests])
        asked, answers = [], [0.0] * len(requests)
        for number, (request, text) in enumerate(zip(requests, texts, strict=True)):
            self.remarks.note(request, text)
            windows = get_rolling_token_windows(text.ids, self.encoding.start, self.window, 1)
            for context, scored in map(make_disjoint_window, windows):
                asked.append((number, [*context, *scored], len(context)))
        for number, total, _ in self.score(asked):
            answers[number] += total
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """The text that follows each prompt, up to the first of its stop strings."""
        kinds: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            kinds[repr(sorted(request.args[1].items()))].append(number)
        encoded = self.encoding.all([request.args[0] for request in requests])
        prompts = [encoded[request.args[0]] or [self.encoding.start] for request in requests]
        answers = [""] * len(requests)
        done = 0
        for numbers in kinds.values():
            settings = merged(requests[numbers[0]].args[1], self.settings)
            numbers.sort(key=lambda number: -len(prompts[number]))
            for batch in self.prompt_batches(numbers, prompts, settings["max_gen_toks"]):
                asked = [prompts[number] for number in batch]
                texts = in_halves(
                    lambda some, kind=settings: continue_text(self, some, kind), asked
                )
                for number, (text, cut) in zip(batch, texts, strict=True):
                    answers[number] = text
                    self.remarks.counts["truncated"][requests[number].task_name] += cut
                done += len(batch)
                self.progress(done, len(requests))
        return answers
