"""A causal model as lm-eval's `LM`: what it asks is answered in few, full, exact passes.

lm-eval's own (`HFLM`) passes the context of a question once per choice and computes logits for
every token; here the choices of one question share one context, side by side in one sequence,
each seeing the context and itself alone, and the output head works on the scored end only.
Sequences of like length share a pass, bounded by tokens rather than rows; a pass that does not
fit into memory is halved.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lm_eval.models.utils import resolve_max_length
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llama_bench.measure.evaluation import generation
from llama_bench.measure.evaluation.answering import AnsweringLM
from llama_bench.measure.evaluation.halving import in_halves
from llama_bench.measure.evaluation.packing import Pack, Scored, mask, packed
from llama_bench.records import Refusal

# tokens that one pass takes (a CPU's for each thread: more are no faster, and pad more), and
# numbers that its output head may write
PASS = {"cpu": (512, 2**26), "cuda": (65_536, 2**28)}


class CausalLM(AnsweringLM):
    """A model in this process."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        bos: str | None = None,
        settings: dict | None = None,
    ):
        window = resolve_max_length(model.config, tokenizer)
        super().__init__(tokenizer, window, bos, settings)
        self.model = model

    @property
    def _room(self) -> tuple[int, int]:
        tokens, numbers = PASS[self.model.device.type]
        many = torch.get_num_threads() if self.model.device.type == "cpu" else 1
        return tokens * many, numbers

    def score(self, questions: list[list[Scored]]) -> Iterator[tuple[int, float, bool]]:
        yield from self._score([pack for question in questions for pack in packed(question)])

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
        highest = scored.gather(1, wanted[:, None])[:, 0] == scored.amax(-1)
        highest[highest.clone()] = scored[highest].argmax(-1) == wanted[highest]  # ties: the first
        if not torch.isfinite(given).all():
            raise Refusal("non-finite", "the model's log-likelihoods are not finite")
        numbers, counts = zip(
            *((number, len(places)) for pack in batch for number, places, _ in pack.scored),
            strict=True,
        )
        totals = [part.sum().item() for part in given.double().cpu().split(counts)]
        greedy = [bool(part.all()) for part in highest.cpu().split(counts)]
        return list(zip(numbers, totals, greedy, strict=True))

    def write(self, prompts: list[list[int]], new: int, stops: list[str], **settings) -> list[str]:
        return generation.written(self, prompts, new, stops, **settings)

    def prompt_batches(self, numbers: list[int], prompts: list) -> Iterator[list[int]]:
        most, _ = self._room
        many = max(1, 8 * most // len(prompts[numbers[0]]))
        return (numbers[first : first + many] for first in range(0, len(numbers), many))
