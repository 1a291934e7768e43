"""A causal model as lm-eval's `LM`: what it asks is answered in few, full, exact passes.

lm-eval's own (`HFLM`) passes the context of a question once per choice and computes logits for
every token; here the choices of one question share one context, side by side in one sequence,
each seeing the context and itself alone, and the output head works on the scored end only.
Sequences of like length share a pass, bounded by tokens rather than rows; a pass that does not
fit into memory is halved. One request that cannot be scored (it encodes to nothing, or is longer
than the window) must not end the run: it is scored as impossible and remarked upon.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import resolve_max_length
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llama_bench.measure import chat
from llama_bench.measure.encoding import Encoding
from llama_bench.measure.generation import continue_text
from llama_bench.measure.halving import in_halves
from llama_bench.measure.packing import Pack, mask, packed
from llama_bench.measure.remarks import Remarks
from llama_bench.records import Refusal

# tokens that one pass takes (a CPU's for each thread: more are no faster, and pad more), and
# numbers that its output head may write
PASS = {"cpu": (512, 2**26), "cuda": (65_536, 2**28)}

IMPOSSIBLE = (-math.inf, False)


class CausalLM(LM):
    """Log-likelihoods and generated text of one model.

    `remarks` tell of requests that could not be scored as they stood; `progress(done, of)` hears
    of every pass. `settings` replace the tasks' own settings of generation.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        bos: str | None = None,
        settings: dict | None = None,
    ):
        super().__init__()
        self.model, self.tokenizer, self.settings = model, tokenizer, settings or {}
        self.encoding = Encoding(tokenizer, resolve_max_length(model.config, tokenizer), bos)
        self.window = self.encoding.window
        self.progress = lambda done, of: None
        self.remarks = Remarks()

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt=True) -> str:
        return chat.rendered(self.tokenizer, chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list:
        """(log-likelihood in nats, whether it is the greedy answer) of each continuation."""
        pairs = self.encoding.pairs([request.args[:2] for request in requests])
        questions: dict[tuple, list] = defaultdict(list)
        for number, (request, pair) in enumerate(zip(requests, pairs, strict=True)):
            self.remarks.note(request, pair)
            if pair.ids:
                question = questions[request.task_name, request.doc_id]
                question.append((number, pair.ids, pair.start))
        packs = [pack for question in questions.values() for pack in packed(question)]
        answers = [IMPOSSIBLE] * len(requests)
        for number, total, greedy in self._score(packs):
            answers[number] = (total, greedy)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list:
        """Log-likelihood in nats of each whole text, in windows that overlap by one token."""
        texts = self.encoding.rolling([request.args[0] for request in requests])
        packs, answers = [], [0.0] * len(requests)
        for number, (request, text) in enumerate(zip(requests, texts, strict=True)):
            self.remarks.note(request, text)
            windows = get_rolling_token_windows(text.ids, self.encoding.start, self.window, 1)
            for context, scored in map(make_disjoint_window, windows):
                packs += packed([(number, [*context, *scored], len(context))])
        for number, total, _ in self._score(packs):
            answers[number] += total
        return answers

    @property
    def _room(self) -> tuple[int, int]:
        tokens, numbers = PASS[self.model.device.type]
        many = torch.get_num_threads() if self.model.device.type == "cpu" else 1
        return tokens * many, numbers

    def _score(self, packs: list[Pack]) -> Iterator[tuple[int, float, bool]]:
        """(request, log-likelihood, greedy) of everything in the packs."""
        done = 0
        for batch in self._batches(packs):
            yield from in_halves(self._pass, batch)
            done += len(batch)
            self.progress(done, len(packs))

    def _batches(self, packs: list[Pack]) -> Iterator[list[Pack]]:
        """Packs of like length, as many as a pass may hold."""
        most, logits = self._room
        outputs = logits // self.model.get_output_embeddings().weight.shape[0]
        batch: list[Pack] = []
        longest = end = 0
        for pack in sorted(packs, key=lambda p: (len(p.ids), p.end), reverse=True):
            longest, end = max(longest, len(pack.ids)), max(end, pack.end)
            many = len(batch) + 1
            if batch and (many * longest > most or many * end > outputs):
                yield batch
                batch, longest, end = [], len(pack.ids), pack.end
            batch.append(pack)
        if batch:
            yield batch

    @torch.inference_mode()
    def _pass(self, batch: list[Pack]) -> list[tuple[int, float, bool]]:
        """One forward pass; packs are padded on the left, so that their scored ends lie together.

        Raises Refusal where the model gives no numbers: they would be scored all the same.
        """
        length, end = max(len(p.ids) for p in batch), max(p.end for p in batch)
        ids, segment, position = (
            torch.tensor([[fill] * (length - len(p.ids)) + getattr(p, key) for p in batch])
            for key, fill in (("ids", 0), ("segment", -1), ("position", 0))
        )
        device = self.model.device
        logits = self.model(
            input_ids=ids.to(device),
            attention_mask=mask(segment.to(device), self.model.dtype),
            position_ids=position.to(device),
            use_cache=False,
            logits_to_keep=end,
        ).logits
        rows, columns, tokens = [], [], []
        for row, pack in enumerate(batch):
            for _, places, foretold in pack.scored:
                rows += [row] * len(places)
                columns += [place + end - len(pack.ids) for place in places]
                tokens += foretold
        scored = logits[rows, columns].float()
        wanted = torch.tensor(tokens, device=device)
        given = torch.log_softmax(scored, dim=-1).gather(1, wanted[:, None])[:, 0]
        if not torch.isfinite(given).all():
            raise Refusal("non-finite", "the model's log-likelihoods are not finite")
        numbers, counts = zip(
            *((number, len(places)) for pack in batch for number, places, _ in pack.scored),
            strict=True,
        )
        totals = [part.sum().item() for part in given.double().cpu().split(counts)]
        greedy = [bool(part.all()) for part in (scored.argmax(-1) == wanted).cpu().split(counts)]
        return list(zip(numbers, totals, greedy, strict=True))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """The text that follows each prompt, up to the first of its stop strings."""
        kinds: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            kinds[repr(sorted(request.args[1].items()))].append(number)
        encoded = self.encoding.all([request.args[0] for request in requests])
        prompts = [encoded[request.args[0]] for request in requests]
        answers = [""] * len(requests)
        done = 0
        for numbers in kinds.values():
            settings = {**requests[numbers[0]].args[1], **self.settings}
            numbers.sort(key=lambda number: -len(prompts[number]))
            for batch in self._prompt_batches(numbers, prompts):
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

    def _prompt_batches(self, numbers: list[int], prompts: list) -> Iterator[list[int]]:
        most, _ = self._room
        many = max(1, 8 * most // len(prompts[numbers[0]]))
        return (numbers[first : first + many] for first in range(0, len(numbers), many))
