"""Texts written token by token, by rows that leave when they are done.

Of answers that end at a stop string most are short and a few are long, and a row costs as much
after its end as before. So where the likeliest token is taken the work is left when half of the
rows are done, and taken up again, with the keys and values that are there, for the others.
"""

from __future__ import annotations

from itertools import zip_longest

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from llama_bench.measure.evaluation.stems import is_plain
from llama_bench.measure.model import parts
from llama_bench.records import Refusal
from llama_bench.sections.generation import OF_SAMPLING

Texts = list[tuple[str, bool]]  # each with whether it was cut: more would have followed
# settings that count no new tokens and tie no rows to each other: such a text is the same in one
# pass and in several
OF_ANY_PASS = {
    *("do_sample", *OF_SAMPLING),  # nothing is drawn
    *("repetition_penalty", "no_repeat_ngram_size", "max_length", "use_cache"),
    *("length_penalty", "early_stopping"),  # of beams
    *("bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config"),
}
OF_ONE = {"num_beams", "num_beam_groups", "num_return_sequences"}  # idle where they are 1


class Ends(StoppingCriteria):
    """A row ends with one of the tokens `last`, or when its new text holds one of the stop strings;
    `at` has the length of each that did. With `leaves` all are called done once half of them are.
    Beams change places from step to step: none stays done."""

    def __init__(
        self, tokenizer, stops: list[str], first: int, last: set[int], leaves: bool, beams
    ):
        self.tokenizer, self.stops, self.first = tokenizer, stops, first
        self.last, self.leaves, self.beams = last, leaves, beams
        self.at: dict[int, int] = {}
        # a stop string spans no more tokens than bytes, and may begin inside a token
        self.span = 2 + max((len(stop.encode()) for stop in stops), default=0)

    def __call__(self, input_ids, scores, **_) -> torch.Tensor:
        if self.beams:
            self.at = {}
        newest = input_ids[:, self.first :][:, -self.span :].tolist()
        going = [row for row in range(len(newest)) if row not in self.at]
        texts = self.tokenizer.batch_decode([newest[row] for row in going] if self.stops else [])
        for row, text in zip_longest(going, texts, fillvalue=""):
            if newest[row][-1] in self.last or any(stop in text for stop in self.stops):
                self.at[row] = input_ids.shape[1]
        if self.leaves and 2 * len(self.at) >= len(newest):
            return torch.ones(len(newest), dtype=torch.bool, device=input_ids.device)
        done = [row in self.at for row in range(len(newest))]
        return torch.tensor(done, device=input_ids.device)


class Finite(LogitsProcessor):
    """Raises Refusal where the model gives no numbers: a token would be taken all the same."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(scores.amax(-1)).all():
            raise Refusal("non-finite", "the model's logits are not finite")
        return scores


@torch.inference_mode()
def written(lm, prompts: list[list[int]], new: int, stops: list[str], **settings) -> Texts:
    """At most `new` tokens after each prompt, as text, the stop string still in it, and whether it
    goes on: none of them ends a text.

    What settings leave open is as the model's own generation config says. A text ends with that
    one's EOS, and with the tokenizer's: of models tuned to chat they can be two.
    """
    own = lm.model.generation_config
    settings = {"eos_token_id": _ids(own.eos_token_id, lm.tokenizer.eos_token_id), **settings}
    if len(parts(lm.model)) == 1:
        settings = {"use_cache": True, **settings}  # whatever it was trained with
    said = own.to_diff_dict() | settings
    answers = _answers(lm, prompts, new, stops, said, settings)
    texts = _decoded(lm, prompts, answers)
    ends = set(_ids(said["eos_token_id"]) or ())
    return [
        (text, len(answer) == new and ends.isdisjoint(answer))
        for text, answer in zip(texts, answers, strict=True)
    ]


def _ids(*given: int | list[int] | None) -> list[int] | None:
    """Each id once; None where there is none."""
    found = [each if isinstance(each, list) else [each] for each in given if each is not None]
    return sorted({number for numbers in found for number in numbers}) or None


def _answers(
    lm, prompts: list[list[int]], new: int, stops: list[str], said: dict, settings: dict
) -> list[list[int]]:
    """The new tokens of each prompt, to its end; `said` is what holds, of which `settings` are
    passed on."""
    length, device = max(map(len, prompts)), lm.model.device
    pad = lm.tokenizer.pad_token_id
    pad = pad if pad is not None else lm.encoding.start
    before = [length - len(prompt) for prompt in prompts]
    ids = [[pad] * empty + prompt for empty, prompt in zip(before, prompts, strict=True)]
    ids, cache = torch.tensor(ids, device=device), None
    places = torch.arange(length + new, device=device)
    seen = (places >= torch.tensor(before, device=device)[:, None]).long()
    leaves, beams = _in_several_passes(lm.model, said), (said.get("num_beams") or 1) > 1
    last = set(_ids(said["eos_token_id"]) or ()) if leaves else set()
    rows, answers = list(range(len(prompts))), [[]] * len(prompts)
    while rows:
        stop = Ends(lm.tokenizer, stops, length, last, leaves, beams)
        out = lm.model.generate(
            input_ids=ids,
            attention_mask=seen[:, : ids.shape[1]],
            past_key_values=cache,
            max_new_tokens=length + new - ids.shape[1],
            logits_processor=LogitsProcessorList([Finite()]),
            stopping_criteria=StoppingCriteriaList([stop] if stops or leaves else []),
            pad_token_id=pad,
            tokenizer=lm.tokenizer,  # for stop strings of the generation config
            return_dict_in_generate=True,
            **settings,
        )
        ids, cache = out.sequences, out.past_key_values
        for place, row in enumerate(rows):
            answers[row] = ids[place, length : None if beams else stop.at.get(place)].tolist()
        going = [place for place in range(len(rows)) if place not in stop.at]
        if not leaves or not going or ids.shape[1] == length + new:
            return answers
        kept = torch.tensor(going, device=device)
        rows, ids, seen = [rows[place] for place in going], ids[kept], seen[kept]
        if cache is not None:  # of a model that keeps none
            cache.batch_select_indices(kept)
    return answers


def _in_several_passes(model, said: dict) -> bool:
    """Whether a text is the same when it is left and taken up again with the rows that go on."""
    bound = [
        key
        for key in set(said) - OF_ANY_PASS
        if said[key] not in (None, False) and not (key in OF_ONE and said[key] == 1)
    ]
    greedy = not said.get("do_sample") and not bound
    return greedy and len(parts(model)) == 1 and is_plain(model)


def _decoded(lm, prompts: list[list[int]], answers: list[list[int]]) -> list[str]:
    """What the answers add to their prompts, as generation.py says; decoded by itself where the
    prompt reads otherwise with it, as before bytes that make no character."""
    tokenizer = lm.tokenizer
    if lm.encoding.bos == "stock":
        return tokenizer.batch_decode(answers, skip_special_tokens=True)
    whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    starts = tokenizer.batch_decode(prompts, skip_special_tokens=True)
    ends = tokenizer.batch_decode(whole, skip_special_tokens=True)
    return [
        text[len(start) :]
        if text.startswith(start)
        else tokenizer.decode(answer, skip_special_tokens=True)
        for start, text, answer in zip(starts, ends, answers, strict=True)
    ]
