"""What a probe says is what an independent bare loop finds: the same work, the same time.

Work is compared by its counted operations. Time is compared twice: what the probe says lies between
a clock read inside the work and one read around it, whatever the machine does; and against the bare
loop repeat by repeat, in turn, by the time that the process had of the processor: it takes nineteen
of twenty pairs that lean far to one side to fail, which equal work has once in 20,000 times.
"""

import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DynamicCache

from llama_bench.measure import model as models
from llama_bench.measure.probing import instruments, phases, probed_model, static_cache, timing
from llama_bench.shape import Shape

CPU = torch.device("cpu")
BATCH, CONTEXT = 2, 128


@pytest.fixture(scope="module")
def llama(request):
    """A real pretrained one where it is at hand, else a built one."""
    folder = request.path.parents[3] / "shared" / "models" / "stories3M"
    if folder.is_dir():
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return models.build(Shape(layers=6, width=192, heads=6, kv_heads=2), 4096, 512, 0).eval()


@torch.inference_mode()
def bare_prefill(model, ids):
    model.lm_head(model.model(input_ids=ids, use_cache=True).last_hidden_state[:, -1:])


def filled(model) -> DynamicCache:
    cache = DynamicCache()
    with torch.inference_mode():
        model(phases.random_tokens(model, BATCH, CONTEXT - 8), past_key_values=cache)
    return cache


@torch.inference_mode()
def bare_decode(model, ids, cache, steps):
    """Greedy, from a filled cache, each token fed back."""
    for _ in range(steps):
        ids = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)


def ratios(work, prepare_bare, bare) -> list[float]:
    """Of processor time, ours over the bare loop's, ascending; of twenty pairs."""
    found = []
    for pair in range(22):
        work.prepare()
        prepared = prepare_bare()
        began = time.process_time()
        timing.once(work, CPU)
        between = time.process_time()
        bare(*prepared)
        if pair >= 2:
            found.append((between - began) / (time.process_time() - between))
    return sorted(found)


def agree(found: list[float]) -> bool:
    return found[1] < 1.5 and found[-2] > 1 / 1.5


def flops(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_prefill_takes_as_long_as_a_bare_loop(llama):
    work = phases.Prefill(llama, BATCH, CONTEXT)
    assert agree(ratios(work, lambda: (llama, work.ids), bare_prefill))


def test_decode_takes_as_long_as_a_bare_loop(llama):
    work = phases.Decode(llama, BATCH, CONTEXT)
    assert agree(ratios(work, lambda: (llama, work.ids[0], filled(llama), 8), bare_decode))


def test_twice_the_work_would_not_agree(llama):
    work = phases.Prefill(llama, BATCH, CONTEXT)
    twice = torch.cat([work.ids] * 3)
    assert not agree(ratios(work, lambda: (llama, twice), bare_prefill))


class Watched:
    """Work with a clock of its own inside."""

    def __init__(self, work):
        self.prepare, self._work = work.prepare, work.work
        self.inside: list[float] = []

    def work(self):
        began = time.perf_counter()
        self._work()
        self.inside.append(time.perf_counter() - began)


@pytest.mark.parametrize("kind", [phases.Prefill, phases.Decode])
def test_the_time_told_is_that_of_the_work_and_nothing_else(llama, kind):
    """Not of its preparation, and in seconds."""
    watched, around = Watched(kind(llama, 1, 40)), []
    for _ in range(5):
        began = time.perf_counter()
        told = timing.once(watched, CPU)
        around.append(time.perf_counter() - began)
        assert watched.inside[-1] <= told <= around[-1]
    kept = timing.measure(watched, CPU, instruments.of(CPU), 4, 0.0, warmup=False)["seconds"]
    assert all(inside <= told for inside, told in zip(watched.inside[-4:], kept, strict=True))


def test_operations_are_those_of_the_bare_loop_and_of_the_formula(llama):
    """Two for each weight and token, the head's for the last position alone; what attention takes
    comes on top, and is the same in both."""
    prefill = phases.Prefill(llama, BATCH, CONTEXT)
    prefill.prepare()
    counted = flops(prefill.work)
    assert counted == flops(lambda: bare_prefill(llama, prefill.ids))
    head = llama.config.vocab_size * llama.config.hidden_size
    layers = models.count(llama)["in_matrix_products"] - head
    products = 2 * (layers * prefill.tokens + head * BATCH)
    config = llama.config
    widths = config.num_attention_heads * config.head_dim
    attention = 4 * config.num_hidden_layers * CONTEXT * widths  # at most, for each token
    assert products <= counted <= products + attention * prefill.tokens
    decode = phases.Decode(llama, BATCH, CONTEXT)
    products = 2 * (layers + head) * decode.tokens
    counted = flops(decode.work)
    assert products <= counted <= products + attention * decode.tokens
    cache = filled(llama)
    assert counted == flops(lambda: bare_decode(llama, decode.ids[0], cache, 8))


def test_every_token_that_is_counted_goes_through_the_model(llama):
    seen = []
    hook = llama.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    try:
        for kind in (phases.Prefill, phases.Decode, static_cache.Prefill):
            work = kind(llama, 3, 40)
            work.prepare()
            seen.clear()
            work.work()
            assert sum(seen) == work.tokens
    finally:
        hook.remove()


def test_cache_of_the_real_model_is_as_large_as_the_formula(llama):
    shape = Shape(
        layers=llama.config.num_hidden_layers,
        width=llama.config.hidden_size,
        heads=llama.config.num_attention_heads,
        kv_heads=llama.config.num_key_value_heads,
    )
    for kind in (phases.Prefill, phases.Decode, static_cache.Prefill):
        work = kind(llama, 3, 40)
        work.prepare()
        work.work()
        assert work.kv_bytes == 120 * shape.kv_bytes_per_token(4)
        assert work.kv_bytes == probed_model.cache_bytes(llama.config, 120, torch.float32)
