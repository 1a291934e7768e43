"""What a probe says is what an independent bare loop finds: the same work, the same time.

Times are compared interleaved, as the ratio of medians, so that whatever else the machine does
meets both alike; a bootstrap interval of that ratio has to reach into a generous range.
"""

import random
import statistics
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DynamicCache

from llama_bench.measure import model as models
from llama_bench.measure.probing import phases, probed_model, static_cache, timing
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


@torch.inference_mode()
def bare_decode(model, ids, cache, steps):
    """Greedy, from a filled cache, each token fed back."""
    for _ in range(steps):
        ids = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)


def ratio_interval(one: list[float], other: list[float]) -> tuple[float, float]:
    """90 % bootstrap interval of the ratio of medians (Efron 1979)."""
    draw = random.Random(0)
    ratios = sorted(
        statistics.median(draw.choices(one, k=len(one)))
        / statistics.median(draw.choices(other, k=len(other)))
        for _ in range(400)
    )
    return ratios[20], ratios[379]


def agree(work, prepare_bare, bare) -> tuple[float, float]:
    ours, theirs = [], []
    for _ in range(25):
        ours.append(timing.once(work, CPU))
        prepared = prepare_bare()
        began = time.perf_counter()
        bare(*prepared)
        theirs.append(time.perf_counter() - began)
    return ratio_interval(ours[5:], theirs[5:])


def flops(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_prefill_takes_as_long_as_a_bare_loop(llama):
    work = phases.Prefill(llama, BATCH, CONTEXT)
    low, high = agree(work, lambda: (llama, work.ids), bare_prefill)
    assert low < 1.5
    assert high > 1 / 1.5


def test_decode_takes_as_long_as_a_bare_loop(llama):
    work = phases.Decode(llama, BATCH, CONTEXT)

    def filled():
        cache = DynamicCache()
        with torch.inference_mode():
            llama(phases.random_tokens(llama, BATCH, CONTEXT - 8), past_key_values=cache)
        return llama, work.ids[0], cache, 8

    low, high = agree(work, filled, bare_decode)
    assert low < 1.5
    assert high > 1 / 1.5


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
    assert products <= flops(decode.work) <= products + attention * decode.tokens


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
