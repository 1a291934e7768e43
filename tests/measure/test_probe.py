"""A probe's record: every cell of the grid, exact tokens, every repeat, statuses where none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache, FalconConfig

from llama_bench import records
from llama_bench.fields import UserError
from llama_bench.measure import model, probe
from llama_bench.measure.probing import engines, instruments, phases, probed_model, timing
from llama_bench.measure.probing.cells import BUSY, OK
from llama_bench.records import Refusal
from llama_bench.shape import Shape
from llama_bench.specs import Pretrained, ProbeSpec

PRETRAINED = Path(__file__).parents[3] / "shared" / "models" / "stories260K"
SHAPE = Shape(layers=2, width=64, heads=8, kv_heads=2, ffn_width=160)
VOCAB = 300


def spec(**changes) -> ProbeSpec:
    asked = {
        "model": SHAPE,
        "vocab_size": VOCAB,
        "device": "cpu",
        "phases": ("prefill", "decode", "train"),
        "batches": (1, 3),
        "contexts": (1, 40),
        "repeats": 4,
        "seconds": 0.0,
    }
    return ProbeSpec(**(asked | changes))


def run(tmp_path, asked: ProbeSpec, inputs=(), searches=0) -> dict:
    seen = []
    result = probe.run(asked, tmp_path, list(inputs), lambda *where: seen.append(where[:2]))
    visits = len(result["cells"]) * len(timing.rounds(asked.repeats, asked.seconds)) + searches
    assert seen == [(done, visits) for done in range(visits + 1)]
    json.dumps(result, allow_nan=False)  # a record can be written
    return result


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    return run(tmp_path_factory.mktemp("probe"), spec())


def measured(cell: dict) -> bool:
    """Whether it has the status of one, on a machine that may be busy."""
    assert (cell["status"] == BUSY) == bool(cell["busy"])
    return cell["status"] in (OK, BUSY)


def test_every_cell_is_there_once_and_ok(result):
    cells = result["cells"]
    got = [(cell["phase"], cell["batch"], cell["context"]) for cell in cells]
    grid = [(p, b, c) for p in ("prefill", "decode", "train") for b in (1, 3) for c in (1, 40)]
    assert got == grid
    assert all(map(measured, cells))
    assert {cell["reason"] for cell in cells} == {None}
    assert len({frozenset(cell) for cell in cells}) == 1, "rows of one table have the same keys"


def test_repeats_are_kept_and_tokens_exact(result):
    for cell in result["cells"]:
        assert len(cell["seconds"]) == 4
        assert all(seconds > 0 for seconds in cell["seconds"])
        assert cell["round_repeats"] == [1, 1, 1, 1]
        steps = {1: 1, 40: 5}[cell["context"]] if cell["phase"] == "decode" else cell["context"]
        assert cell["tokens"] == cell["batch"] * steps
        assert cell["warmup_repeats"] >= 2
        assert cell["load"] is None or cell["load"] >= 0
        sampled = cell["sampling_seconds"]
        assert sampled is None if cell["phase"] == "train" else len(sampled) == 4


def test_rounds_go_over_the_whole_grid(tmp_path):
    """Every cell is met once before any is met again, the next time in the same order."""
    told = []
    asked = spec(phases=("prefill", "train"), batches=(1, 2), contexts=(8,), repeats=3)
    probe.run(asked, tmp_path, [], lambda done, of, what: told.append(what))
    cells = [f"{p}, batch {b}, context 8" for p in ("prefill", "train") for b in (1, 2)]
    assert told == [f"{c}, round {r}" for r in (1, 2, 3) for c in cells] + ["probed"]


def test_cache_is_as_large_as_the_formula_says(result):
    for cell in result["cells"]:
        expected = SHAPE.kv_bytes_per_token(4) * cell["batch"] * cell["context"]
        expected = None if cell["phase"] == "train" else expected
        assert cell["kv_bytes"] == cell["kv_formula_bytes"] == expected


def test_training_holds_weights_gradients_and_two_moments(result):
    for cell in result["cells"]:
        expected = 16 * result["parameters"]["all"] if cell["phase"] == "train" else None
        assert cell["training_bytes"] == expected


def test_a_device_that_others_use_makes_a_row_busy_and_its_numbers_stay(tmp_path, monkeypatch):
    """As if other programs held all processors while the repeats ran."""
    monkeypatch.setattr(timing.Others, "load", lambda self: float(os.cpu_count()))
    for cell in run(tmp_path, spec(batches=(1,), contexts=(16,)))["cells"]:
        assert (cell["status"], cell["busy"], cell["reason"]) == (BUSY, True, None)
        assert cell["load"] == os.cpu_count()
        assert len(cell["seconds"]) == 4


def test_a_neighbour_of_an_early_round_is_told_at_the_end(tmp_path, monkeypatch):
    """One that another process on the GPU came and went, of four rounds."""
    seen = iter([0, 1, 0, 0])
    monkeypatch.setattr(instruments.Neighbours, "count", lambda *_: next(seen))
    asked = spec(phases=("prefill",), batches=(1,), contexts=(16,))
    (cell,) = run(tmp_path, asked)["cells"]
    assert (cell["other_processes"], cell["status"]) == (1, BUSY)


def test_facts_of_model_and_device(result):
    assert result["parameters"] == SHAPE.parameters(VOCAB)
    assert result["weight_bytes"] == 4 * result["parameters"]["all"]
    assert result["device"]["kind"] == "cpu"
    assert result["device"]["threads"] == torch.get_num_threads()
    assert result["engine"]["name"] == "transformers"
    assert result["weights"] == "random"
    assert result["shape"] == {
        **dict(layers=2, width=64, heads=8, kv_heads=2, head_size=8, vocab_size=VOCAB)
    }
    assert (result["energy_source"] is None) == bool(result["energy_missing"])
    assert result["baseline_bytes"] > 50 * 2**20, "torch alone takes more"


def test_a_cells_memory_does_not_hold_what_other_phases_leave_behind(tmp_path):
    """Each in a process of its own: what libraries load at first use is in the baseline, and so is
    what cold starts leave behind (1.6 MB, were it not). The allocator's own pages differ by some
    0.3 MB from process to process."""
    peaks = []
    for number, others in enumerate(((), ("train",), ("load",))):
        asked = spec(phases=(*others, "decode"), batches=(1,), contexts=(32,), repeats=2)
        path = tmp_path / str(number) / "record.json"
        command = [sys.executable, "-m", "llama_bench", "probe", asked.canonical(), str(path)]
        subprocess.run(command, check=True, capture_output=True)
        cells = json.loads(path.read_text())["result"]["cells"]
        peaks += [cell["peak_bytes"] for cell in cells if cell["phase"] == "decode"]
    assert len(peaks) == 3 and max(peaks) - min(peaks) < 2**20, peaks


def test_loaded_weights_take_the_memory_of_drawn_ones(tmp_path, shared):
    """What loading imports, and pages of the file that come to memory at their first use, are none
    of a pass's."""
    cells = {}
    for random in (None, True):
        asked = spec(
            **dict(model=None, vocab_size=None, pretrained=Pretrained(digest="0")),
            **dict(random_weights=random, phases=("decode",), batches=(1,), contexts=(64,)),
            repeats=2,
        )
        path = tmp_path / str(random) / "record.json"
        words = ["probe", asked.canonical(), str(path), str(shared("models", "stories3M"))]
        command = [sys.executable, "-m", "llama_bench", *words]
        subprocess.run(command, check=True, capture_output=True)
        (cells[random],) = json.loads(path.read_text())["result"]["cells"]
    loaded, drawn = (cells[random]["peak_bytes"] for random in (None, True))
    assert abs(loaded - drawn) < 2**20, (loaded, drawn)
    assert loaded > 4 * 3_148_224


def test_peaks_hold_what_must_be_in_memory(tmp_path):
    """Prefill holds weights and cache; training weights, gradients and AdamW's two moments."""
    shape = Shape(layers=2, width=512, heads=8)
    asked = spec(model=shape, batches=(2,), contexts=(32, 256), repeats=1)
    # a process of its own, as in the workflow: what other tests left in this heap would be reused
    path = tmp_path / "record.json"
    command = [sys.executable, "-m", "llama_bench", "probe", asked.canonical(), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    found = records.read(path).result
    if found["peak_source"] != "VmHWM":
        pytest.skip("this kernel does not let a process reset its highest resident set")
    weights = found["weight_bytes"]
    peaks = {(c["phase"], c["context"]): c["peak_bytes"] for c in found["cells"]}
    for cell in found["cells"]:
        if cell["phase"] == "train":
            assert cell["peak_bytes"] >= 4 * weights
        else:
            assert weights + cell["kv_bytes"] <= cell["peak_bytes"] < 4 * weights
        if cell["phase"] == "prefill":  # where the feed-forward layer has gate, up and product
            product = 4 * cell["tokens"] * shape.ffn_width
            assert 2 * product <= cell["activation_bytes"] <= 12 * product + 2**22
    assert peaks["train", 256] > peaks["train", 32]


def test_bfloat16_halves_weights_and_cache(tmp_path, result):
    found = run(tmp_path, spec(precision="bfloat16"))
    assert all(map(measured, found["cells"]))
    assert 2 * found["weight_bytes"] == result["weight_bytes"]
    for half, full in zip(found["cells"], result["cells"], strict=True):
        assert full["kv_bytes"] is None or 2 * half["kv_bytes"] == full["kv_bytes"]


@pytest.fixture
def built():
    return model.build(SHAPE, VOCAB, 64, 0)


def test_decode_feeds_one_token_per_step_to_a_filled_cache(built):
    fed = []
    decode = phases.Decode(built, batch=2, context=64)
    built.register_forward_pre_hook(
        lambda _, args, given: fed.append(
            (args[0].shape, given["past_key_values"].get_seq_length())
        ),
        with_kwargs=True,
    )
    for _ in range(3):
        decode.prepare()
        decode.work()
    window = [((2, 1), depth) for depth in range(56, 64)]
    assert [(tuple(shape), depth) for shape, depth in fed] == window * 3
    assert decode.tokens == 16


def test_a_cache_filled_in_parts_is_that_of_one_pass(built, monkeypatch):
    """In passes of six tokens: three columns of two sequences, the last of them one."""
    seen = []
    built.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    monkeypatch.setattr(phases, "FILL_TOKENS", 7)
    decode = phases.Decode(built, batch=2, context=45)
    assert seen == [3] * 13 + [1]
    whole = DynamicCache()
    phases.forward(built, phases.random_tokens(built, 2, 40), whole)
    assert decode.cache.get_seq_length() == 40
    for part, one in zip(decode.cache.layers, whole.layers, strict=True):
        torch.testing.assert_close(part.keys, one.keys, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(part.values, one.values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 200, 3000])
def test_no_pass_that_fills_a_cache_is_larger_than_a_step_or_its_bound(built, batch):
    seen = []
    built.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    decode = phases.Decode(built, batch=batch, context=24)
    assert max(seen) <= max(phases.FILL_TOKENS, batch)
    assert sum(seen) == batch * decode.filled


def test_decode_from_the_cache_equals_one_forward_over_all(built):
    """What is timed is the real thing: the same logits as without a cache."""
    ids = phases.random_tokens(built, 2, 20)
    built.eval()
    cache = DynamicCache()
    phases.forward(built, ids[:, :19], cache)
    with torch.no_grad():
        whole = built(ids).logits[:, -1]
        stepped = built(ids[:, 19:], past_key_values=cache).logits[:, -1]
    torch.testing.assert_close(stepped, whole, rtol=1e-4, atol=1e-5)


def test_prefill_starts_from_an_empty_cache_each_time(built):
    prefill = phases.Prefill(built, batch=2, context=10)
    for _ in range(2):
        prefill.prepare()
        prefill.work()
        assert prefill.cache.get_seq_length() == 10


def test_a_training_step_trains(built):
    before = {name: weight.clone() for name, weight in built.named_parameters()}
    train = phases.Train(built, batch=2, context=10, dtype=torch.float32)
    train.prepare()
    train.work()
    assert all(not torch.equal(before[name], w) for name, w in built.named_parameters())
    assert all(weight.grad is None for weight in built.parameters())


def test_random_tokens_span_the_vocabulary_and_repeat(built):
    ids = phases.random_tokens(built, 16, 512)
    assert ids.shape == (16, 512)
    assert set(ids.flatten().tolist()) == set(range(VOCAB))
    assert torch.equal(ids, phases.random_tokens(built, 16, 512))


@pytest.mark.parametrize("phase", ["prefill", "decode", "train"])
def test_out_of_memory_is_a_row_and_the_others_go_on(tmp_path, phase):
    """A real refusal by torch's allocator: tokens alone are 3 * 10^14 bytes."""
    asked = spec(phases=(phase, "prefill"), batches=(10**12, 1), contexts=(40,), repeats=1)
    small, large, *_ = run(tmp_path, asked)["cells"]
    assert small["batch"] == 1
    assert measured(small)
    assert (large["batch"], large["status"]) == (10**12, "out-of-memory")
    assert large["reason"]
    assert "\n" not in large["reason"]
    assert large["seconds"] == []
    assert large["tokens"] is large["peak_bytes"] is None


def test_out_of_memory_in_the_midst_of_a_step(tmp_path):
    """Tokens and attention fit, the feed-forward layer's 2 TB do not; the next cell does."""
    wide = Shape(layers=1, width=2, heads=1, ffn_width=10**6)
    asked = spec(model=wide, batches=(1, 250_000), contexts=(2,), repeats=1)
    for cell in run(tmp_path, asked)["cells"]:
        if cell["batch"] == 1:
            assert measured(cell)
        else:
            assert cell["status"] == "out-of-memory"


@pytest.fixture
def unknown_token(monkeypatch):
    """What kernels do with an id that no embedding has, in the cells of a batch: the other batches
    are in order. A real error of a kernel, if a far-fetched one."""

    def of(batch: int) -> None:
        drawn = phases.random_tokens
        monkeypatch.setattr(
            phases,
            "random_tokens",
            lambda model, rows, columns: drawn(model, rows, columns) + VOCAB * (rows == batch),
        )

    return of


def test_an_error_of_one_cell_is_its_row_and_the_others_go_on(tmp_path, unknown_token, caplog):
    unknown_token(3)
    for cell in run(tmp_path, spec(contexts=(40,)))["cells"]:
        if cell["batch"] == 1:
            assert measured(cell)
            continue
        assert cell["status"] == "failed"
        assert cell["reason"] == "IndexError: index out of range in self"
        assert cell["seconds"] == []
        assert cell["tokens"] is cell["kv_bytes"] is None
    assert "Traceback" in caplog.text, "the log has the rest"


def test_where_no_cell_can_be_measured_an_error_is_an_accident(tmp_path, unknown_token):
    """Without a record, so that the next start tries again."""
    unknown_token(3)
    asked = spec(phases=("prefill",), batches=(3,), contexts=(40, 1000))
    with pytest.raises(RuntimeError, match="no cell could be measured: IndexError: index out of"):
        run(tmp_path, asked)


def test_a_search_for_the_largest_batch_that_fails_is_its_row(tmp_path, unknown_token):
    unknown_token(4)
    asked = spec(phases=("prefill",), batches=(1,), contexts=(8,), max_batch=True)
    (row,) = run(tmp_path, asked, searches=1)["largest_batches"]
    assert (row["status"], row["batch"], row["limited_by"]) == ("failed", None, None)
    assert row["tries"] == 3
    assert "IndexError" in row["reason"]


def test_a_lost_device_ends_the_probe_and_what_was_measured_stays(tmp_path, monkeypatch):
    """As CUDA answers every call after an illegal access; here from the fifth cell's end on."""
    calls = []

    def clean(engine) -> None:
        calls.append(engine)
        if len(calls) >= 5:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with")

    monkeypatch.setattr(engines.Transformers, "clean", clean)
    asked = spec(phases=("prefill",), batches=(1, 2, 3), contexts=(8,), repeats=2, max_batch=True)
    result = run(tmp_path, asked, searches=1)
    assert [len(cell["seconds"]) for cell in result["cells"]] == [2, 2, 1]
    assert all(map(measured, result["cells"]))
    lost = (
        "the device was lost after prefill, batch 2, context 8: "
        "RuntimeError: CUDA error: an illegal memory access was encountered"
    )
    assert [cell["reason"] for cell in result["cells"]] == [None, None, f"only 1 rounds: {lost}"]
    (row,) = result["largest_batches"]
    assert (row["status"], row["reason"], row["tries"]) == ("failed", lost, 0)
    assert len(calls) == 5

    calls[:] = calls[:4]
    first, *others = run(tmp_path, asked, searches=1)["cells"]
    assert measured(first)
    assert [cell["status"] for cell in others] == ["failed", "failed"]
    assert all("lost after prefill, batch 1" in cell["reason"] for cell in others)


def test_a_cache_that_is_not_the_formulas_is_said(tmp_path):
    """Falcon's heads share one key and value (multi-query), which its configuration names in words
    of its own (arXiv 2311.16867)."""
    FalconConfig(
        **dict(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4),
        **dict(multi_query=True, new_decoder_architecture=False, alibi=False),
        architectures=["FalconForCausalLM"],
    ).save_pretrained(tmp_path)
    asked = spec(
        **dict(model=None, vocab_size=None, pretrained=Pretrained(digest="0"), random_weights=True),
        **dict(phases=("prefill",), batches=(1,), contexts=(16,), repeats=1),
    )
    (cell,) = run(tmp_path, asked, [tmp_path])["cells"]
    assert measured(cell)
    assert cell["kv_bytes"] == 2 * 8 * 4 * 16
    assert cell["kv_formula_bytes"] == 4 * cell["kv_bytes"]
    assert cell["reason"] == "keys and values take 1,024 bytes, by formula 4,096"


def test_a_model_that_fits_nowhere_is_out_of_memory(tmp_path):
    huge = Shape(layers=1, width=64, heads=4, ffn_width=10**12)
    with pytest.raises(Refusal) as caught:
        run(tmp_path, spec(model=huge))
    assert caught.value.status == "out-of-memory"


def test_pretrained_model_and_a_context_beyond_its_maximum(tmp_path):
    if not PRETRAINED.is_dir():
        pytest.skip(f"{PRETRAINED} is not here: the real pretrained Llamas lie beside the project")
    asked = spec(
        model=None,
        vocab_size=None,
        pretrained=Pretrained(digest="0"),
        batches=(1,),
        contexts=(512, 1024, 16),
        repeats=1,
    )
    found = run(tmp_path, asked, [PRETRAINED])
    assert found["parameters"]["all"] == 260_032
    assert found["shape"]["kv_heads"] == 4
    assert found["shape"]["vocab_size"] == 512
    for cell in found["cells"]:
        assert cell["status"] == "refused" if cell["context"] == 1024 else measured(cell)
        assert (cell["seconds"] == []) == (cell["context"] == 1024)
        if cell["context"] == 1024:
            assert "512" in cell["reason"]


def test_a_pretrained_folder_without_model_is_missing(tmp_path):
    asked = spec(model=None, vocab_size=None, pretrained=Pretrained(digest="0"))
    with pytest.raises(Refusal) as caught:
        run(tmp_path, asked, [tmp_path])
    assert caught.value.status == "missing"


def test_random_weights_need_the_configuration_alone(tmp_path, shared):
    folder = shared("models", "stories260K")
    shutil.copy(folder / "config.json", tmp_path)
    asked = spec(
        model=None,
        vocab_size=None,
        pretrained=Pretrained(digest="0"),
        random_weights=True,
        batches=(1,),
        contexts=(16, 1024),
        repeats=1,
    )
    found = run(tmp_path, asked, [tmp_path])
    assert found["weights"] == "random"
    assert found["parameters"]["all"] == 260_032
    assert found["weight_bytes"] == 4 * 260_032
    assert [measured(cell) for cell in found["cells"]] == [True, False] * 3


def test_a_model_of_70_billion_is_counted_without_a_weight():
    """Llama 2 70B (Touvron et al. 2023, arXiv 2307.09288, table 1), without its head's table."""
    shape = Shape(layers=80, width=8192, heads=64, kv_heads=8, ffn_width=28672)
    counts = probed_model.counted(model.config_of(shape, 32000, 4096))
    assert counts == shape.parameters(32000)
    assert counts["without_embeddings"] == 68_452_360_192


def test_weights_are_drawn_in_their_precision_and_angles_are_not_rounded():
    drawn = probed_model.drawn(
        model.config_of(SHAPE, VOCAB, 64), torch.bfloat16, torch.device("cpu")
    )
    assert {weight.dtype for weight in drawn.parameters()} == {torch.bfloat16}
    assert drawn.model.rotary_emb.inv_freq.dtype == torch.float32
    assert 0.015 < drawn.model.embed_tokens.weight.float().std() < 0.025


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_the_users_to_know(tmp_path):
    with pytest.raises(UserError, match=r"probe\.device: cuda") as caught:
        run(tmp_path, spec(device="cuda"))
    assert "\n" not in str(caught.value)
