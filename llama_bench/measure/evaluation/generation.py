"""Text that a model writes: until a stop string for a task, or so many tokens for people to read.

Prompts are given as ids and padded on the left. The text is what decoding prompt and answer
together adds to the prompt: a decoder of the answer alone drops the blank in front of its first
word (SentencePiece's do), and " None" would not match "None". lm-eval's own models decode the
answer alone; `bos: stock` does too.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from llama_bench.measure.evaluation.halving import in_halves
from llama_bench.records import Refusal
from llama_bench.sections.generation import OF_SAMPLING, spelled

TEMPERATURE = 0.8
Texts = list[tuple[str, bool]]  # each with whether it was cut: more would have followed
LENGTH = 256  # new tokens where a task does not say, as in lm-eval
LEAST_ROOM = 8  # an eighth of the window: for the answer to a prompt that should be kept whole


class StopStrings(StoppingCriteria):
    """A sequence is done when its new text holds one of the stop strings. Beams change places from
    step to step: none stays `done`."""

    def __init__(self, tokenizer, stops: list[str], prompt_length: int, beams: bool = False):
        self.tokenizer, self.stops, self.first = tokenizer, stops, prompt_length
        self.beams = beams
        self.done: torch.Tensor | None = None
        # a stop string spans no more tokens than bytes, and may begin inside a token
        self.last = 2 + max(len(stop.encode()) for stop in stops)

    def __call__(self, input_ids, scores, **_) -> torch.Tensor:
        if self.done is None or self.beams:
            self.done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        open_rows = [row for row, done in enumerate(self.done.tolist()) if not done]
        new = input_ids[:, self.first :][open_rows, -self.last :]
        for row, text in zip(open_rows, self.tokenizer.batch_decode(new), strict=True):
            self.done[row] = any(stop in text for stop in self.stops)
        return self.done


class Finite(LogitsProcessor):
    """Raises Refusal where the model gives no numbers: a token would be taken all the same."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(scores.amax(-1)).all():
            raise Refusal("non-finite", "the model's logits are not finite")
        return scores


def merged(task: dict, own: dict) -> dict:
    """A task's settings with those that replace them, as transformers takes them, but `until` and
    `max_gen_toks` (lm-eval's words). What says how to draw goes where nothing is drawn."""
    task, own = spelled(task), spelled(own)
    if own.get("do_sample") is None and own.get("temperature") is not None:
        own["do_sample"] = own["temperature"] > 0
    found = {"until": [], "max_gen_toks": LENGTH, **task, **own}
    if "max_length" in found:
        raise ValueError("generation_kwargs: max_length counts the prompt too; say max_gen_toks")
    temperature = float(found.get("temperature") or 0)
    if found.get("do_sample") is None:
        found["do_sample"] = temperature > 0
    if found["do_sample"]:
        return found | {"temperature": temperature or 1.0}
    return {key: value for key, value in found.items() if key not in OF_SAMPLING}


def continue_text(lm, prompts: list[list[int]], settings: dict) -> Texts:
    """Texts after the prompts under `merged` settings, and whether each prompt or text was cut.

    A prompt that leaves no room for the answer in the window loses its beginning. The room is that
    of the longest text that may be written, as in lm-eval's own models (half of the window where
    that is longer than the window, which those refuse); of a task that wants `whole_prompts` it is
    what a prompt leaves of the window, and an eighth of that at least. A text that ends with its
    room, short of what was asked, is cut.
    """
    settings = dict(settings)
    stops = [stop for stop in settings.pop("until") or [] if stop]
    most = settings.pop("max_gen_toks")
    alike: dict[int, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        alike[_room(lm, len(prompt), most)].append(number)
    found: Texts = [("", False)] * len(prompts)
    for new, numbers in alike.items():
        room = lm.window - new
        texts = lm.write([prompts[n][-room:] for n in numbers], new, stops, **settings)
        for number, (text, goes_on) in zip(numbers, texts, strict=True):
            cut = new < most and goes_on and not any(stop in text for stop in stops)
            for stop in stops:
                text = text.split(stop)[0]
            found[number] = text, cut or len(prompts[number]) > room
    return found


def _room(lm, length: int, most: int) -> int:
    """The tokens that may be written after a prompt of this length."""
    if lm.whole_prompts and lm.encoding.bos != "stock":
        return min(most, max(lm.window - length, -(-lm.window // LEAST_ROOM)))
    return most if most < lm.window else lm.window // 2


def samples(lm, prompts: tuple[str, ...], tokens: int, seed: int) -> list[dict]:
    """What the model makes of each prompt: greedily, and drawn once with a fixed seed.

    A blank at a prompt's end is left to the model: tokenizers join it to the word that follows.
    """
    prompts = [prompt.rstrip(" ") for prompt in prompts]
    room = max(1, lm.window - tokens)
    ids = [(lm.encoding.encode(prompt) or [lm.encoding.start])[-room:] for prompt in prompts]
    tokens = min(tokens, lm.window - 1)
    torch.manual_seed(seed)
    drawn = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0, "top_p": 1.0}
    rows = []
    for decoding, number, settings in (
        ("greedy", None, {"do_sample": False}),
        (f"temperature {TEMPERATURE}", seed, drawn),
    ):
        texts = in_halves(lambda some, how=settings: lm.write(some, tokens, [], **how), ids)
        for prompt, (text, _) in zip(prompts, texts, strict=True):
            rows.append({"prompt": prompt, "text": text, "decoding": decoding, "seed": number})
    return rows


@torch.inference_mode()
def written(lm, prompts: list[list[int]], new: int, stops: list[str], **settings) -> Texts:
    """At most `new` tokens after each prompt, as text, the stop string still in it, and whether it
    goes on: none of them ends a text."""
    tokenizer, length = lm.tokenizer, max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else lm.encoding.start
    ids = torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    beams = settings.get("num_beams", 1) > 1
    stop = [StopStrings(tokenizer, stops, length, beams)] if stops else []
    out = lm.model.generate(
        input_ids=ids.to(lm.model.device),
        attention_mask=mask.to(lm.model.device),
        max_new_tokens=new,
        logits_processor=LogitsProcessorList([Finite()]),
        stopping_criteria=StoppingCriteriaList(stop),
        pad_token_id=pad,
        **settings,
    )
    answers = out[:, length:].tolist()
    texts = _decoded(lm, prompts, answers)
    ends = settings.get("eos_token_id", lm.model.generation_config.eos_token_id)
    ends = set(ends if isinstance(ends, list) else [ends])
    return [
        (text, len(answer) == new and ends.isdisjoint(answer))
        for text, answer in zip(texts, answers, strict=True)
    ]


def _decoded(lm, prompts: list[list[int]], answers: list[list[int]]) -> list[str]:
    """What the answers add to their prompts, as the module says."""
    tokenizer = lm.tokenizer
    if lm.encoding.bos == "stock":
        return tokenizer.batch_decode(answers, skip_special_tokens=True)
    whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    starts = tokenizer.batch_decode(prompts, skip_special_tokens=True)
    ends = tokenizer.batch_decode(whole, skip_special_tokens=True)
    return [text[len(start) :] for start, text in zip(starts, ends, strict=True)]
