"""A model's logits at some places of a pass, a few at a time.

The output head is the widest of all products: a window of 131,072 tokens and a vocabulary of
128,256 have 67 GB of float32 logits, where the rest of the pass is a thousandth of it. So the head
gets to see the places that are asked alone, and of these no more than fit at once: the hidden
states are kept, and the model is called again with its layers left out, which leaves what it makes
of the head's logits (scaling, capping, mixing with those of other members) its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from transformers import Cache, PreTrainedModel

from llama_bench.measure.model import parts


def logits(
    model: PreTrainedModel,
    places: torch.Tensor,
    most: int,
    cache: Callable[[], Cache | None],
    **inputs,
) -> Iterator[torch.Tensor]:
    """Of the `places` (counted through the rows of a pass), at most `most` at a time, in order;
    `cache` gives what the pass goes on from."""
    hidden: dict[torch.nn.Module, torch.Tensor] = {}
    first = 0

    def some_of_them(head: torch.nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        if head not in hidden:
            hidden[head] = given[0].flatten(0, 1)[places.to(given[0].device)]
        return (hidden[head][first : first + most],)

    with ExitStack() as opened:
        trunks = [part.base_model for part in parts(model) if part.base_model is not part]
        once = len(places) <= most or len(trunks) < len(parts(model))
        most = len(places) if once else most
        for part in parts(model):
            head = part.get_output_embeddings()
            opened.callback(head.register_forward_pre_hook(some_of_them).remove)
        for trunk in () if once else trunks:
            opened.enter_context(_computed_once(trunk))
        while first < len(places):
            yield model(past_key_values=cache(), **inputs).logits
            first += most


@contextmanager
def _computed_once(module: torch.nn.Module) -> Iterator[None]:
    """Within it, a module gives again what it gave the first time."""
    forward, own = module.forward, "forward" in vars(module)
    given = []

    def kept(work, *args, **settings):
        if not given:
            given.append(work(*args, **settings))
        return given[0]

    module.forward = partial(kept, forward)
    try:
        yield
    finally:
        if own:
            module.forward = forward
        else:
            del module.forward
