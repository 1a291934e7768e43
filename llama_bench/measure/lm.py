"""A causal model as lm-eval's `LM`: what it asks is answered in few, full, exact passes.

Four facts shape this adapter. lm-eval's own (`HFLM`) passes the context of a question once per
choice and computes logits for every token; here the choices of one question share one context,
side by side in one sequence, each seeing the context and itself alone, and the output head works
on the scored end only. A document begins with one BOS: models were trained so, some tokenizers
add it by themselves and others do not, so it is put in front here, once, whatever the tokenizer
does. Tokens do not end where a context ends ("foo" + "s" may be one token): scored is what the
tokens of the whole text and of the context do not share. And one request that cannot be scored
(it encodes to nothing, or is longer than the window) must not end the run: it is scored as
impossible and counted in `unscored`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llama_bench.measure.generation import continue_text
from llama_bench.measure.packing import Pack, common, mask, packed
from llama_bench.records import Refusal

# tokens that one pass takes, and numbers that its output head may write
PASS = {"cpu": (4096, 2**26), "cuda": (65_536, 2**28)}

IMPOSSIBLE = (-math.inf, False)


class CausalLM(LM):
    """Log-likelihoods and generated text of one model.

    `unscored` counts by task the requests that could not be scored, `truncated` those whose
    context lost its beginning; `progress(done, of)` hears of every pass.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.window = model.config.get_text_config().max_position_embeddings
        self.progress = lambda done, of: None
        self.unscored: Counter[str] = Counter()
        self.truncated: Counter[str] = Counter()

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text from its start: after one BOS, where the tokenizer has one."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        bos = self.tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    @property
    def start(self) -> int:
        """What stands before a text's first token: BOS, or what ended the text before."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        return 0

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list:
        """(log-likelihood in nats, whether it is the greedy answer) of each continuation."""
        questions: dict[tuple, list] = defaultdict(list)
        for number, request in enumerate(requests):
            ids, start = self._pair(*request.args[:2])
            ids, start = self._fit(ids, start, request.task_name)
            if start < len(ids):
                questions[request.task_name, request.doc_id].append((number, ids, start))
        packs = [pack for question in questions.values() for pack in packed(question)]
        answers = [IMPOSSIBLE] * len(requests)
        for number, total, greedy in self._score(packs):
            answers[number] = (total, greedy)
        return answers

    def _pair(self, context: str, continuation: str) -> tuple[list[int], int]:
        """Ids of the whole, and where those begin that the context alone does not give."""
        whole = self.encode(context + continuation)
        stem = self.encode(context)
        start = common(whole, stem)
        return (whole, start) if start else ([self.start, *whole], 1)

    def _fit(self, ids: list[int], start: int, task: str) -> tuple[list[int], int]:
        """A text too long loses its beginning; nothing is left where there is nothing to score."""
        if start >= len(ids) or len(ids) - start > self.window:
            self.unscored[task] += 1
            return [], 0
        excess = max(0, len(ids) - (self.window + 1))
        self.truncated[task] += excess > 0
        return ids[excess:], start - excess

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list:
        """Log-likelihood in nats of each whole text, in windows that overlap by one token."""
        packs, answers = [], [0.0] * len(requests)
        for number, request in enumerate(requests):
            ids = self.encode(request.args[0])
            ids = ids[1:] if ids[:1] == [self.start] else ids
            self.unscored[request.task_name] += not ids
            windows = get_rolling_token_windows(ids, self.start, self.window, context_len=1)
            for context, scored in map(make_disjoint_window, windows):
                packs += packed([(number, [*context, *scored], len(context))])
        for number, total, _ in self._score(packs):
            answers[number] += total
        return answers

    def _score(self, packs: list[Pack]) -> Iterator[tuple[int, float, bool]]:
        """(request, log-likelihood, greedy) of everything in the packs."""
        done = 0
        for batch in self._batches(packs):
            yield from self._pass(batch)
            done += len(batch)
            self.progress(done, len(packs))

    def _batches(self, packs: list[Pack]) -> Iterator[list[Pack]]:
        """Packs of like length, as many as a pass may hold."""
        most, logits = PASS[self.model.device.type]
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
            raise Refusal("diverged", "the model's log-likelihoods are not finite")
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
        answers = [""] * len(requests)
        done = 0
        for numbers in kinds.values():
            prompts = {number: self.encode(requests[number].args[0]) for number in numbers}
            numbers.sort(key=lambda number: -len(prompts[number]))
            for batch in self._prompt_batches(numbers, prompts):
                settings = requests[batch[0]].args[1]
                texts, cut = continue_text(self, [prompts[n] for n in batch], settings)
                for number, text, shortened in zip(batch, texts, cut, strict=True):
                    answers[number] = text
                    self.truncated[requests[number].task_name] += shortened
                done += len(batch)
                self.progress(done, len(requests))
        return answers

    def _prompt_batches(self, numbers: list[int], prompts: dict) -> Iterator[list[int]]:
        most, _ = PASS[self.model.device.type]
        many = max(1, 4 * most // len(prompts[numbers[0]]))
        return (numbers[first : first + many] for first in range(0, len(numbers), many))
