"""A causal model as lm-eval's `LM`: what it asks is answered in few, full, exact passes.

lm-eval's own (`HFLM`) passes the context of a question once per choice and computes logits for
every token; here what sequences share is passed once (packing.py, stems.py), and the output head
works only where something is asked. Rows of like length share a pass, bounded by tokens rather
than rows; a pass that does not fit into memory is halved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial

import torch
from lm_eval.models.utils import resolve_max_length
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llama_bench.measure.evaluation import heads, writing
from llama_bench.measure.evaluation.answering import AnsweringLM
from llama_bench.measure.evaluation.halving import in_halves
from llama_bench.measure.evaluation.packing import Row, Scored, mask, rows
from llama_bench.measure.evaluation.stems import Stem, grouped, is_plain, needs_a_pass_each
from llama_bench.measure.evaluation.writing import Texts
from llama_bench.measure.model import parts
from llama_bench.records import Refusal

# Of one pass: tokens (a CPU's for each thread: more are no faster, and pad more), tokens whose keys
# and values it holds with those of its stem, and numbers that its output head may write.
PASS = {"cpu": (512, 8_192, 2**26), "cuda": (65_536, 131_072, 2**28)}
# of texts that are written together: tokens whose keys and values they may come to hold
WRITTEN = {"cpu": 65_536, "cuda": 131_072}


class CausalLM(AnsweringLM):
    """A model in this process."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        bos: str | None = None,
        settings: dict | None = None,
        most_rows: int | None = None,
    ):
        window = resolve_max_length(model.config, tokenizer)
        most_rows = 1 if needs_a_pass_each(model) else most_rows
        super().__init__(tokenizer, window, bos, settings, most_rows)
        self.model = model
        # a token's products are 12 width^2 weights a layer, its attention 2 width for every key, at
        # half the speed
        self._products = None
        if is_plain(model):
            widths = [part.config.get_text_config().hidden_size for part in parts(model)]
            self._products = 3 * max(widths)

    @property
    def _room(self) -> tuple[int, int, int]:
        tokens, held, numbers = PASS[self.model.device.type]
        many = torch.get_num_threads() if self.model.device.type == "cpu" else 1
        return tokens * many, held * many, numbers

    @property
    def _most_outputs(self) -> int:
        """The places of a pass that the output head may see at once."""
        return max(1, self._room[2] // self.model.get_output_embeddings().weight.shape[0])

    @torch.inference_mode()
    def score(self, asked: list[Scored]) -> Iterator[tuple[int, float, bool]]:
        done = 0
        groups = grouped(asked) if self._products else [(0, asked)]
        for length, sequences in groups:
            stem = Stem(self.model, sequences[0][1][:length])
            own = [(number, ids[length:], start - length) for number, ids, start in sequences]
            for batch in self._batches(rows(own, self._products), length):
                yield from in_halves(partial(self._pass, stem), batch)
                done += sum(len(row.scored) for row in batch)
                self.progress(done, len(asked))

    def _batches(self, laid: Iterable[Row], stem: int) -> Iterator[list[Row]]:
        """Rows of like length, as many as a pass may hold."""
        tokens, held, _ = self._room
        most = self._most_outputs
        batch: list[Row] = []
        longest = outputs = 0
        for row in sorted(laid, key=lambda row: len(row.ids), reverse=True):
            many, outputs = len(batch) + 1, outputs + row.outputs
            full = many * longest > tokens or many * (stem + longest) > held or outputs > most
            if batch and (full or len(batch) == self.most_rows):
                yield batch
                batch, outputs = [], row.outputs
            longest = len(row.ids) if not batch else longest
            batch.append(row)
        if batch:
            yield batch

    def _pass(self, stem: Stem, batch: list[Row]) -> list[tuple[int, float, bool]]:
        """One forward pass of rows that are padded behind."""
        places, at, tokens, counts = _asked(batch)
        at, wanted = torch.tensor(at), torch.tensor(tokens)
        given = torch.empty(len(at))
        greedy = torch.empty(len(at), dtype=torch.bool)
        first = 0
        with closing(self._logits(stem, batch, places)) as parts_of_them:
            for logits in parts_of_them:
                here = ((at >= first) & (at < first + len(logits))).nonzero()[:, 0]
                own = _foretold(logits.float(), at[here] - first, wanted[here])
                given[here], greedy[here] = own
                first += len(logits)
        totals = [part.sum().item() for part in given.double().split(counts)]
        likeliest = [bool(part.all()) for part in greedy.split(counts)]
        numbers = [number for row in batch for number, _, _ in row.scored]
        return list(zip(numbers, totals, likeliest, strict=True))

    def _logits(self, stem: Stem, batch: list[Row], places: list[int]) -> Iterator[torch.Tensor]:
        """The model's logits at places of the rows, these counted through."""
        device, length = self.model.device, max(len(row.ids) for row in batch)
        ids = torch.tensor([row.ids + [0] * (length - len(row.ids)) for row in batch])
        told = {}
        if self._products:  # elsewhere a row is one sequence, and some models take no positions
            depth = [row.depth + list(range(len(row.ids), length)) for row in batch]
            depth = torch.tensor(depth, device=device) + stem.length
            # padding may reach beyond the window, where some models have no positions
            told["position_ids"] = depth.clamp(max=self.window - 1)
        return heads.logits(
            self.model,
            torch.tensor(places, device=device),
            self._most_outputs,
            partial(stem.before, len(batch)),
            input_ids=ids.to(device),
            attention_mask=mask(batch, stem.length, self.model.dtype, device),
            use_cache=False,
            **told,
        )

    def write(self, prompts: list[list[int]], new: int, stops: list[str], **settings) -> Texts:
        return writing.written(self, prompts, new, stops, **settings)

    def prompt_batches(self, numbers: list[int], prompts: list, new: int) -> Iterator[list[int]]:
        most, _, _ = self._room
        held, longest = WRITTEN[self.model.device.type], len(prompts[numbers[0]])
        many = self.most_rows or max(1, min(8 * most // longest, held // (longest + new)))
        return (numbers[first : first + many] for first in range(0, len(numbers), many))


def _foretold(
    logits: torch.Tensor, at: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of tokens that rows of logits foretell: log-likelihoods, and whether each is the likeliest.

    Raises Refusal where the model gives no numbers: they would be scored all the same.
    """
    at, wanted = at.to(logits.device), wanted.to(logits.device)
    given, top = logits[at, wanted], logits.amax(-1)
    highest = given == top[at]
    ties = logits[at[highest]].argmax(-1)  # of equal ones the first is taken
    highest[highest.clone()] = ties == wanted[highest]
    sums = logits.sub_(top[:, None]).exp_().sum(-1)  # in place: as large as all the rest
    given = given - top[at] - sums.log()[at]
    if not torch.isfinite(given).all():
        raise Refusal("non-finite", "the model's log-likelihoods are not finite")
    return given.cpu(), highest.cpu()


def _asked(batch: list[Row]) -> tuple[list[int], list[int], list[int], list[int]]:
    """The places that foretell something, each once, counted through the padded rows; for every
    scored token which of these foretells it, and its id; and how many each request has."""
    length = max(len(row.ids) for row in batch)
    known: dict[int, int] = {}
    at, tokens, counts = [], [], []
    for first, row in enumerate(batch):
        for _, places, foretold in row.scored:
            at += [known.setdefault(first * length + place, len(known)) for place in places]
            tokens += foretold
            counts.append(len(places))
    return list(known), at, tokens, counts
