"""Text that a model writes: until a stop string for a task, or so many tokens for people to read.

Prompts are given as ids and padded on the left. The text is what decoding prompt and answer
together adds to the prompt: a decoder of the answer alone drops the blank in front of its first
word (SentencePiece's do), and " None" would not match "None". lm-eval's own models decode the
answer alone; `bos: stock` does too.
"""

from __future__ import annotations

from collections import defaultdict

import torch

from llama_bench.measure.evaluation.halving import in_halves
from llama_bench.measure.evaluation.writing import Texts
from llama_bench.sections.generation import OF_SAMPLING, spelled

TEMPERATURE = 0.8
LENGTH = 256  # new tokens where a task does not say, as in lm-eval
LEAST_ROOM = 8  # an eighth of the window: for the answer to a prompt that should be kept whole


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
