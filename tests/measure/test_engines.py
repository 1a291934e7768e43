"""Static cache and compiled step, weights of few bits, cold starts, the largest batch that fits."""

import copy
import json
import shutil
import subprocess
import sys
from importlib import metadata

import pytest
import torch
from torch._inductor.exc import InductorError
from transformers import MistralConfig

from llama_bench.measure import memory, probe
from llama_bench.measure import model as models
from llama_bench.measure.probing import cold_start, largest_batch, phases, quantized, static_cache
from llama_bench.measure.probing.cells import BUSY, OK
from llama_bench.records import Refusal
from llama_bench.shape import Shape
from llama_bench.specs import Pretrained, ProbeSpec

SHAPE = Shape(layers=1, width=64, heads=4, kv_heads=2, ffn_width=160)
VOCAB = 300
CPU = torch.device("cpu")


def run(tmp_path, **changes) -> dict:
    asked = {
        "model": SHAPE,
        "vocab_size": VOCAB,
        "device": "cpu",
        "phases": ("prefill", "decode"),
        "batches": (1, 2),
        "contexts": (16,),
        "repeats": 2,
        "seconds": 0.0,
    }
    result = probe.run(ProbeSpec(**(asked | changes)), tmp_path, [], lambda *where: None)
    json.dumps(result, allow_nan=False)
    return result


def installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def built():
    return models.build(SHAPE, VOCAB, 64, 0).eval()


def whole_logits(model, decode) -> torch.Tensor:
    """Of the last position, without any cache."""
    before = phases.random_tokens(model, 2, decode.filled)
    with torch.no_grad():
        return model(torch.cat([before, *decode.ids], dim=1)).logits[:, -1]


def test_a_static_cache_computes_what_one_forward_over_all_does(built):
    decode = static_cache.Decode(built, batch=2, context=40, compiled=False)
    expected = whole_logits(built, decode)
    for _ in range(2):  # from the same depth again
        decode.prepare()
        found = [decode._step(ids) for ids in decode.ids][-1]
        torch.testing.assert_close(found[:, -1], expected, rtol=1e-4, atol=1e-5)
    assert decode.tokens == 2 * 5
    assert decode.kv_bytes == 80 * SHAPE.kv_bytes_per_token(4)


def test_a_static_cache_filled_in_parts_is_that_of_one_pass(built, monkeypatch):
    whole = static_cache.Decode(built, batch=2, context=40, compiled=False)
    monkeypatch.setattr(phases, "FILL_TOKENS", 12)
    parts = static_cache.Decode(built, batch=2, context=40, compiled=False)
    for part, one in zip(parts.cache.layers, whole.cache.layers, strict=True):
        assert part.cumulative_length == one.cumulative_length == 35
        torch.testing.assert_close(part.keys, one.keys, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(part.values, one.values, rtol=1e-5, atol=1e-5)


def test_sliding_windows_are_refused_a_static_cache(tmp_path):
    """It would hold the window alone, and not be cut back between repeats."""
    MistralConfig(
        **dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=1),
        **dict(num_attention_heads=2, num_key_value_heads=2, sliding_window=8),
        architectures=["MistralForCausalLM"],
    ).save_pretrained(tmp_path)
    spec = ProbeSpec(
        **dict(pretrained=Pretrained(digest="0"), random_weights=True, engine="static"),
        **dict(device="cpu", phases=("prefill",), batches=(1,), contexts=(16,), repeats=1),
        seconds=0.0,
    )
    (cell,) = probe.run(spec, tmp_path, [tmp_path], lambda *where: None)["cells"]
    assert cell["status"] == "refused"
    assert "sliding windows" in cell["reason"]


@pytest.mark.parametrize(
    ("inner", "raised", "said"),
    [
        (torch.OutOfMemoryError("Tried to allocate 2.00 GiB"), InductorError, "Tried to allocate"),
        (
            RuntimeError("no kernel\nat all"),
            Refusal,
            "cannot be compiled: RuntimeError: no kernel$",
        ),
    ],
)
def test_memory_that_runs_out_while_compiling_is_no_refusal(
    built, monkeypatch, inner, raised, said
):
    """What the compiler raises is made here: it takes a GPU that is full to see it happen."""

    def failing(*_, **__):
        raise InductorError(inner, None)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: failing)
    with pytest.raises(raised, match=said) as caught:
        static_cache.Decode(built, batch=2, context=16)
    assert memory.is_out_of_memory(caught.value) == (raised is InductorError)


@pytest.mark.skipif(bool(static_cache.refuses(CPU)), reason="no C++ compiler is here")
def test_the_compiled_step_computes_the_same(built):
    """At the first and the last depth of its window, by one program."""
    decode = static_cache.Decode(built, batch=2, context=16)
    expected = whole_logits(built, decode)
    decode.prepare()
    found = [decode._step(ids) for ids in decode.ids][-1]
    torch.testing.assert_close(found[:, -1], expected, rtol=1e-4, atol=1e-5)
    assert decode.compile_seconds > 0
    assert decode.cudagraph_skips is None, "a CPU has no graphs"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_on_a_gpu_the_compiled_step_is_replayed_as_a_graph(built):
    decode = static_cache.Decode(copy.deepcopy(built).to("cuda"), batch=2, context=16)
    assert decode.cudagraph_skips == 0


def test_no_compiler_is_a_row_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    for cell in run(tmp_path, engine="static")["cells"]:
        assert cell["status"] == "refused"
        assert "install g++" in cell["reason"]


@pytest.mark.skipif(installed("torchao"), reason="torchao is here")
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_without_torchao_weights_of_few_bits_are_refused(tmp_path, precision):
    result = run(tmp_path, precision=precision)
    assert {cell["status"] for cell in result["cells"]} == {"refused"}
    assert "pip install 'llama-bench[quantized]'" in result["cells"][0]["reason"]
    assert result["weight_bytes"] is None


@pytest.mark.skipif(not installed("torchao"), reason="torchao is not installed")
def test_int8_weights_are_a_byte_each_and_training_is_refused(tmp_path):
    result = run(tmp_path, precision="int8", phases=("prefill", "decode", "train"))
    for cell in result["cells"]:
        assert (cell["status"] == "refused") == (cell["phase"] == "train")
        if cell["phase"] != "train":
            assert cell["kv_bytes"] == SHAPE.kv_bytes_per_token(2) * cell["batch"] * 16
    matrices = SHAPE.parameters(VOCAB)["in_matrix_products"]
    table = 2 * VOCAB * SHAPE.width  # embeddings stay in bfloat16, and no longer share the head's
    assert 1 <= (result["weight_bytes"] - table) / matrices < 1.1


@pytest.mark.skipif(not installed("torchao"), reason="torchao is not installed")
def test_int4_is_measured_or_refused_with_what_torchao_says(tmp_path):
    result = run(tmp_path, precision="int4", model=Shape(layers=1, width=64, heads=2, ffn_width=96))
    reason = quantized.refuses("int4", CPU)
    for cell in result["cells"]:
        assert (cell["status"] == "refused") == (reason is not None)
        assert cell["reason"] == reason


def test_load_is_import_weights_and_first_token_each_time_anew(tmp_path):
    result = run(tmp_path, phases=("load",), repeats=1)
    (cell,) = result["cells"]  # of the grid the smallest
    assert (cell["batch"], cell["context"], cell["tokens"]) == (1, 16, 16)
    parts = [cell[part] for part in ("import_seconds", "load_seconds", "first_token_seconds")]
    assert cell["seconds"] == [pytest.approx(sum(part[0] for part in parts))]
    assert all(part[0] > 0 for part in parts)
    assert cell["warmup_repeats"] == 0
    assert not (tmp_path / "cold_start").exists(), "weights are deleted"


def test_a_cold_start_of_what_is_no_model_says_so(tmp_path, shared):
    """What the process says of a folder that has a configuration, and no weights."""
    shutil.copy(shared("models", "stories260K") / "config.json", tmp_path)
    spec = ProbeSpec(
        model=SHAPE,
        vocab_size=VOCAB,
        **dict(device="cpu", phases=("load",), batches=(1,), contexts=(4,), repeats=1, seconds=0),
    )
    said = cold_start._main(["0.0", spec.canonical(), "1", "4", str(tmp_path)])
    assert said["status"] == "missing"
    assert "holds no weights" in said["reason"]


@pytest.mark.parametrize("most", [0, 1, 2, 3, 5, 64, 100, 255, 4095, 4096, 5000])
def test_bisection_ends_at_the_largest_that_fits(most):
    tried = []

    def reason_against(batch):
        tried.append(batch)
        return None if batch <= most else "full"

    found = largest_batch.largest(reason_against)
    assert found["batch"] == (min(most, largest_batch.MOST) or None)
    assert found["tries"] == len(tried) == len(set(tried)) <= 26
    assert found["status"] == ("ok" if most else "out-of-memory")
    full = most < largest_batch.MOST
    assert found["limited_by"] == (None if not most else "memory" if full else "most")
    assert found["reason"] == ("full" if full else None)


_LIMITED = """
import json, resource, sys
from pathlib import Path
from llama_bench.measure import memory, probe
from llama_bench.specs import ProbeSpec
spec, found = ProbeSpec.parse(sys.argv[1]), []
probe.run(spec.model_copy(update={"max_batch": None}), Path("."), [], lambda *_: None)
for mebibytes in (192, 384):
    memory.release()
    limit = memory._status_bytes("VmData") + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    found.append(probe.run(spec, Path("."), [], lambda *_: None))
print(json.dumps(found))
"""


def test_the_largest_batch_is_found_by_running_out_of_memory(tmp_path):
    """Real refusals under a real limit, in a process that lives through all of them. A token's
    three feed-forward activations take 0.6 MB here, a sequence's some 10 MB."""
    asked = ProbeSpec(
        model=Shape(layers=1, width=64, heads=4, ffn_width=50_000),
        vocab_size=VOCAB,
        **dict(device="cpu", phases=("prefill",), batches=(1, 10_000), contexts=(16,)),
        **dict(repeats=1, seconds=0.0, max_batch=True),
    )
    command = [sys.executable, "-c", _LIMITED, asked.canonical()]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    small, large = json.loads(done.stdout.splitlines()[-1])
    for result in (small, large):
        small_cell, large_cell = result["cells"]
        assert small_cell["status"] in (OK, BUSY)
        assert large_cell["status"] == "out-of-memory"
        (row,) = result["largest_batches"]
        assert (row["phase"], row["context"], row["status"]) == ("prefill", 16, "ok")
        assert row["limited_by"] == "memory"
        assert row["reason"]
    batches = [result["largest_batches"][0]["batch"] for result in (small, large)]
    assert 1 <= batches[0] < batches[1] < 384 / 9
