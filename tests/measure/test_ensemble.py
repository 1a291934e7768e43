"""Several models as one: every number is held against the members' own, asked one by one."""

import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.api.instance import Instance
from safetensors.torch import load_file, save_file
from tiny_llama import CONTEXT, adapter, checkpoint
from transformers import AutoTokenizer, DynamicCache

from llama_bench.fields import UserError
from llama_bench.measure import ensemble, evaluate, held_out_loss, model, probe, tasks
from llama_bench.measure.ensemble_model import EnsembleForCausalLM
from llama_bench.measure.evaluation.lm import CausalLM
from llama_bench.measure.probing import phases, probed_model, static_cache
from llama_bench.records import Record, Refusal
from llama_bench.shape import Shape
from llama_bench.specs import EvaluateSpec, Pretrained, ProbeSpec, TasksSpec

METHODS = ("mixture", "product")
WEIGHTS = [0.7, 0.3]
LARGER = Shape(layers=3, width=64, heads=2, kv_heads=1, tied_embeddings=False)


def silent(*_):
    pass


@pytest.fixture(scope="module")
def folders(prepared, tmp_path_factory):
    """Two sizes on one tokenizer, with tied and untied embeddings; wide weights, so that they
    differ in what they say."""
    folder = tmp_path_factory.mktemp("members")
    first = checkpoint(folder / "first", prepared)
    built = model.build(LARGER, 512, CONTEXT, seed=1)
    with torch.no_grad():
        for weight in built.parameters():
            weight.mul_(3.0)
    second = shutil.copytree(prepared.parent / "tokenizer", folder / "second")
    model.save(built, second)
    return [first, second]


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensembles")
    for method in METHODS:
        ensemble.write(folders, WEIGHTS, method, folder / method)
    return folder


@pytest.fixture(scope="module")
def mixture(written):
    return ensemble.load(written / "mixture")


@pytest.fixture
def stories(shared, tmp_path):
    """A real pretrained Llama, and the same one without its last two layers: two sizes."""
    whole = shared("models", "stories3M")
    cut = model.load(whole)
    cut.model.layers = cut.model.layers[:4]
    cut.config.num_hidden_layers = 4
    small = tmp_path / "small"
    model.save(cut, small)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(whole / name, small)
    return [whole, small]


@torch.no_grad()
def by_hand(folders, ids, method, weights=WEIGHTS):
    """Probabilities in float64, from the members' own logits."""
    logits = [model.load(folder).eval()(ids).logits.double() for folder in folders]
    if method == "mixture":
        return sum(w * each.softmax(-1) for w, each in zip(weights, logits, strict=True))
    told = sum(w * each.log_softmax(-1) for w, each in zip(weights, logits, strict=True))
    return told.softmax(-1)


def drawn_ids(vocab_size, *shape):
    return torch.randint(3, vocab_size, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_are_the_members_weighted_mean(folders, written, method):
    ids = drawn_ids(512, 3, 60)
    found = ensemble.load(written / method)(ids).logits
    expected = by_hand(folders, ids, method)
    assert found.dtype == torch.float32
    assert (found.double().exp() - expected).abs().max() < 1e-6
    assert (found.double().exp().sum(-1) - 1).abs().max() < 1e-6
    # the members do disagree, and the two ways are two
    assert (expected - by_hand(folders[:1], ids, method, [1.0])).abs().max() > 0.01
    other = by_hand(folders, ids, METHODS[method == "mixture"])
    assert (expected - other).abs().max() > 0.005


@pytest.mark.parametrize("method", METHODS)
def test_real_models_of_two_sizes(stories, tmp_path, method):
    ensemble.write(stories, WEIGHTS, method, tmp_path / "whole")
    ids = torch.cat([torch.tensor([[1], [1]]), drawn_ids(4096, 2, 100)], dim=1)
    found = ensemble.load(tmp_path / "whole")(ids).logits.double().exp()
    assert (found - by_hand(stories, ids, method)).abs().max() < 1e-6


def test_one_member_alone_and_copies_are_the_member(folders, tmp_path):
    ids = drawn_ids(512, 2, 40)
    first = model.load(folders[0]).eval()(ids).logits.log_softmax(-1)
    ensemble.write(folders, [1.0, 0.0], "mixture", tmp_path / "alone")
    ensemble.write([folders[0]] * 3, [0.5, 0.25, 0.25], "product", tmp_path / "copies")
    for name in ("alone", "copies"):
        found = ensemble.load(tmp_path / name)(ids).logits
        torch.testing.assert_close(found, first, rtol=0, atol=1e-5)


def test_weights_are_copied_to_the_byte_and_counted_together(folders, written, mixture):
    stored = {}
    for path in (written / "mixture").glob("*.safetensors"):
        stored |= load_file(path)
    for place, folder in enumerate(folders):
        own = load_file(folder / "model.safetensors")
        for name, weight in own.items():
            assert torch.equal(stored.pop(f"member_{place}.{name}"), weight)
    assert not stored
    counts = [model.count(model.load(folder)) for folder in folders]
    assert model.count(mixture) == {kind: sum(c[kind] for c in counts) for kind in counts[0]}
    ids = [
        AutoTokenizer.from_pretrained(f)("def main():").input_ids
        for f in (folders[0], written / "mixture")
    ]
    assert ids[0] == ids[1]


def test_a_cache_holds_all_members_and_changes_nothing(folders, mixture):
    """In one piece, in three pieces, cut back and gone on, and in a cache of fixed size."""
    ids = drawn_ids(512, 2, 24)
    whole = mixture(ids, use_cache=False).logits
    cache, parts = DynamicCache(), []
    for part in ids.split([10, 13, 1], dim=1):
        parts.append(mixture(part, past_key_values=cache, use_cache=True).logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)
    configs = [model.load(folder).config for folder in folders]
    expected = sum(probed_model.cache_bytes(c, 48, torch.float32) for c in configs)
    assert phases.cache_bytes(cache) == expected
    assert probed_model.cache_bytes(mixture.config, 48, torch.float32) == expected
    cache.crop(-14)
    again = mixture(ids[:, 10:], past_key_values=cache, logits_to_keep=1).logits
    torch.testing.assert_close(again, whole[:, -1:], rtol=1e-4, atol=1e-4)
    fixed = static_cache.Decode(mixture, batch=2, context=24, compiled=False)
    told = [fixed._step(step) for step in fixed.ids][-1]
    before = phases.random_tokens(mixture, 2, fixed.filled)
    straight = mixture(torch.cat([before, *fixed.ids], dim=1)).logits[:, -1:]
    torch.testing.assert_close(told, straight, rtol=1e-4, atol=1e-4)


PROMPTS = ("def main(", "import os\nimport sys\n\nclass ", "for line in ")


def greedy_by_hand(folders, ids, new, end):
    for _ in range(new):
        told = by_hand(folders, torch.tensor([ids]), "mixture")[0, -1]
        ids = [*ids, int(told.argmax())]
        if ids[-1] == end:
            break
    return ids


def test_greedy_text_of_a_padded_batch_is_that_of_the_mixed_probabilities(folders, mixture):
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    lm = CausalLM(mixture, tokenizer)
    prompts = [lm.encoding.encode(prompt) for prompt in PROMPTS]
    assert len({len(prompt) for prompt in prompts}) > 1, "some are padded"
    texts = [text for text, _ in lm.write(prompts, 12, [], do_sample=False)]
    for prompt, text in zip(prompts, texts, strict=True):
        whole = greedy_by_hand(folders, prompt, 12, mixture.config.eos_token_id)
        started = tokenizer.decode(prompt, skip_special_tokens=True)
        assert text == tokenizer.decode(whole, skip_special_tokens=True)[len(started) :]


def test_a_beginning_that_is_passed_once_is_passed_once_for_every_member(folders, mixture):
    """As the examples before every question of a task are, through a cache."""
    lm, with_cache = CausalLM(mixture, AutoTokenizer.from_pretrained(folders[0])), []
    hook = mixture.register_forward_pre_hook(
        lambda _, args, given: with_cache.append(given["past_key_values"] is not None),
        with_kwargs=True,
    )
    beginning = "".join(f"def method{n}(self):\n    return self.value{n}\n" for n in range(12))
    pairs = [
        (
            f"{beginning}def other{n}(self, first, second):\n    x = [{n}]\n",
            f"    y = {n} * first\n",
        )
        for n in range(90)
    ]
    requests = [
        Instance("loglikelihood", {}, pair, n, metadata=("t", n, 1)) for n, pair in enumerate(pairs)
    ]
    found = lm.loglikelihood(requests)
    hook.remove()
    assert any(with_cache), "the beginning was not passed apart"
    for pair, (total, _) in list(zip(lm.encoding.pairs(pairs), found, strict=True))[::30]:
        told = by_hand(folders, torch.tensor([pair.ids[:-1]]), "mixture")[0].log()
        wanted = torch.tensor(pair.ids[pair.start :])
        expected = told[pair.start - 1 :].gather(1, wanted[:, None]).sum().item()
        assert total == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("settings", [{}, {"do_sample": True}, {"num_beams": 3}])
def test_generation_with_a_cache_is_generation_without(mixture, settings):
    ids = drawn_ids(512, 3, 9)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    found = []
    for use_cache in (True, False):
        torch.manual_seed(3)
        given = {"attention_mask": mask, "max_new_tokens": 10, "pad_token_id": 0}
        found.append(mixture.generate(ids, use_cache=use_cache, **given, **settings))
    assert torch.equal(*found)


def test_in_bfloat16_the_mean_is_taken_in_float32(folders, written):
    low = model.load(written / "mixture", dtype=torch.bfloat16).eval()
    assert {weight.dtype for weight in low.parameters()} == {torch.bfloat16}
    ids = drawn_ids(512, 2, 30)
    with torch.no_grad():
        own = [model.load(f, dtype=torch.bfloat16).eval()(ids).logits.double() for f in folders]
        found = low(ids).logits
    expected = sum(w * each.softmax(-1) for w, each in zip(WEIGHTS, own, strict=True))
    assert (found.double().exp() - expected).abs().max() < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_losses_of_some_members_are_those_of_their_ensemble(folders, written, tmp_path, method):
    windows = drawn_ids(512, 5, 33).numpy()
    three = [*folders, folders[0]]
    ensemble.write(three, [1 / 3] * 3, method, tmp_path / "three")
    sets = [(0,), (1,), (0, 1), (0, 2), (0, 1, 2)]
    found = ensemble.losses_of_sets(ensemble.load(tmp_path / "three"), windows, sets)
    assert found.shape == (5, 5, 32) and found.dtype == np.float64
    for places, losses in zip(sets, found, strict=True):
        some = [three[place] for place in places]
        ensemble.write(some, [1 / len(some)] * len(some), method, tmp_path / "some")
        expected = held_out_loss.losses(ensemble.load(tmp_path / "some"), windows)
        np.testing.assert_allclose(losses, expected, atol=1e-5)


@pytest.fixture(scope="module")
def suite(prepared, tmp_path_factory):
    """A tasks run: a folder of lm-eval tasks, as an examples run leaves one too."""
    folder = tmp_path_factory.mktemp("suite")
    spec = TasksSpec(data=prepared.parent.name, items=8)
    result = tasks.run(spec, folder, [prepared], _Progress())
    path = folder / "record.json"
    Record(id="s", verb="tasks", spec={}, seconds={}, provenance={}, result=result).write(path)
    return path


class _Progress:
    def __call__(self, *_):
        pass

    say = __call__


NAMES = ("heldout_cloze", "heldout_identifier", "heldout_bits_per_byte")


@pytest.fixture(scope="module")
def evaluated(written, suite, tmp_path_factory):
    """Through the verb, with the tasks as those of an examples run."""
    folder = tmp_path_factory.mktemp("evaluate")
    fused = written / "run"
    shutil.copytree(written / "mixture", fused / "checkpoint")
    spec = EvaluateSpec(
        fuse="run-12345678",
        tasks=NAMES,
        examples=("suite-12345678",),
        prompts=("import ",),
        prompt_tokens=6,
    )
    result = evaluate.run(spec, folder, [fused / "record.json", suite], silent)
    return result, pq.read_table(folder / "items.parquet").to_pylist()


def test_scores_are_of_the_members_log_probabilities(evaluated, folders, mixture):
    result, items = evaluated
    assert result["failed"] == []
    assert result["parameters"] == model.count(mixture)
    assert {row["task"] for row in result["scores"]} == set(NAMES)
    assert [row["decoding"] for row in result["samples"]] == ["greedy", "temperature 0.8"]
    encoding, kinds = adapter(folders[0]).encoding, set()
    for item in items:
        if item["task"] == "heldout_bits_per_byte":
            whole, start = [encoding.start, *encoding.encode(item["text"])], 1
            whole = whole[1:] if whole[1] == encoding.start else whole
        else:
            (pair,) = encoding.pairs([(item["prompt"], item["text"])])
            whole, start = pair.ids, pair.start
        if len(whole) > CONTEXT:
            continue
        told = by_hand(folders, torch.tensor([whole[:-1]]), "mixture")[0].log()
        wanted = torch.tensor(whole[start:])
        total = told[start - 1 :].gather(1, wanted[:, None]).sum().item()
        assert item["log_likelihood"] == pytest.approx(total, abs=1e-3, rel=1e-5)
        kinds.add(item["task"])
    assert kinds == set(NAMES)


def test_it_loads_and_is_scored_where_this_package_is_not(written, suite, tmp_path):
    """By the lm_eval command, through AutoModelForCausalLM and the code beside the weights."""
    words = ["lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "4"]
    words += ["--model_args", f"pretrained={written / 'mixture'},trust_remote_code=True"]
    words += ["--include_path", str(suite.parent / "tasks"), "--tasks", "heldout_cloze"]
    words += ["--log_samples", "--output_path", str(tmp_path)]
    code = (
        "import sys\nsys.modules['llama_bench'] = None\n"
        f"sys.argv = {words!r}\nfrom lm_eval.__main__ import cli_evaluate\ncli_evaluate()\n"
    )
    modules = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **modules, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.rglob("samples_heldout_cloze_*.jsonl")
    theirs = [json.loads(line) for line in path.read_text().splitlines()]
    given = {"tasks": ("heldout_cloze",), "examples": ("suite-12345678",), "bos": "stock"}
    spec = EvaluateSpec(pretrained=Pretrained(digest="0"), **given)
    evaluate.run(spec, tmp_path, [written / "mixture", suite], silent)
    ours = {}
    for item in pq.read_table(tmp_path / "items.parquet").to_pylist():
        ours.setdefault(item["doc_id"], []).append(item["log_likelihood"])
    assert len(theirs) == len(ours) > 0
    for sample in theirs:
        likelihoods = [float(answer[0]) for answer in sample["filtered_resps"]]
        assert likelihoods == pytest.approx(ours[sample["doc_id"]], rel=1e-4, abs=1e-3)


def refusal(folders, tmp_path, weights=None):
    with pytest.raises(Refusal) as caught:
        ensemble.write(
            folders, weights or [1 / len(folders)] * len(folders), "mixture", tmp_path / "no"
        )
    assert not list(tmp_path.glob("*no*")), "nothing is left behind"
    assert "\n" not in caught.value.reason
    return caught.value.reason


def test_models_of_two_vocabularies_are_refused(shared, tmp_path):
    both = [shared("models", name) for name in ("stories260K", "stories3M")]
    reason = refusal(both, tmp_path)
    assert "512" in reason and "4096" in reason


def test_another_tokenizer_of_the_same_size_is_refused(folders, tmp_path):
    other = shutil.copytree(folders[1], tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    one, two = list(vocab)[-2:]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    (other / "tokenizer.json").write_text(json.dumps(content))
    assert "different tokenizers" in refusal([folders[0], other], tmp_path)


def test_an_ensemble_is_no_member(folders, written, tmp_path):
    assert "name its members" in refusal([folders[0], written / "mixture"], tmp_path)


@pytest.mark.parametrize("damage", ["lacks", "does not ask for", "another shape", "cannot be read"])
def test_a_member_with_other_tensors_than_its_config_says_is_refused(folders, tmp_path, damage):
    other = shutil.copytree(folders[1], tmp_path / "other")
    path = other / "model.safetensors"
    weights = load_file(path)
    if damage == "lacks":
        del weights["model.norm.weight"]
    elif damage == "does not ask for":
        weights["model.more.weight"] = torch.ones(2)
    elif damage == "another shape":
        weights["model.norm.weight"] = torch.ones(3)
    save_file(weights, path, metadata={"format": "pt"})
    if damage == "cannot be read":
        path.write_bytes(path.read_bytes()[:-8])
    reason = refusal([folders[0], other], tmp_path)
    assert damage in reason and "other" in reason


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [math.inf, 1.0], [1.0]])
def test_weights_that_are_no_shares_are_the_users_mistake(folders, tmp_path, weights):
    with pytest.raises(UserError, match=r"^weights: "):
        ensemble.write(folders, weights, "mixture", tmp_path / "no")
    assert not list(tmp_path.iterdir())


def test_weights_that_were_computed_and_are_none_are_a_result(folders, tmp_path):
    """Another try would compute them again."""
    assert "not numbers" in refusal(folders, tmp_path, [math.nan, 1.0])


def test_state_is_asked_of_trainings_alone(written, suite, evaluated, tmp_path):
    spec = EvaluateSpec(fuse="run-12345678", tasks=NAMES, state="trunk")
    with pytest.raises(Refusal, match="has no trunk"):
        evaluate.run(spec, tmp_path, [written / "run" / "record.json"], silent)


SHAPES = (
    Shape(layers=2, width=64, heads=8, kv_heads=2, ffn_width=160),
    Shape(layers=3, width=96, heads=3, ffn_width=200, tied_embeddings=False),
)


def probed(tmp_path, **changes):
    asked = dict(members=SHAPES, vocab_size=300, device="cpu", repeats=2, seconds=0.0)
    asked |= dict(phases=("prefill", "decode", "train"), batches=(1, 3), contexts=(16,))
    result = probe.run(ProbeSpec(**(asked | changes)), tmp_path, [], silent)
    json.dumps(result, allow_nan=False)
    return result


def test_a_probe_of_shapes_is_one_of_their_ensemble(tmp_path):
    result = probed(tmp_path)
    for cell in result["cells"]:
        if cell["phase"] == "train":
            assert cell["status"] == "refused" and "its members are" in cell["reason"]
            continue
        assert cell["status"] == "ok" and len(cell["seconds"]) == 2
        each = sum(shape.kv_bytes_per_token(4) for shape in SHAPES)
        assert cell["kv_bytes"] == cell["kv_formula_bytes"] == each * 16 * cell["batch"]
    counts = [shape.parameters(300) for shape in SHAPES]
    assert result["parameters"] == {kind: sum(c[kind] for c in counts) for kind in counts[0]}
    assert result["weight_bytes"] == 4 * result["parameters"]["all"]
    assert result["shape"] is None
    assert [each["layers"] for each in result["members"]] == [2, 3]


def test_vllm_is_refused_for_an_ensemble(tmp_path):
    result = probed(tmp_path, engine="vllm")
    assert {cell["reason"] for cell in result["cells"]} == {
        "vllm serves one model, no ensemble; transformers computes one"
    }


def test_random_members_differ(tmp_path):
    config = ensemble.config_of([model.config_of(SHAPES[0], 300, 16)] * 2)
    made = probed_model.drawn(config, torch.float32, torch.device("cpu"))
    assert isinstance(made, EnsembleForCausalLM)
    one, other = (member.lm_head.weight for member in made.members)
    assert not torch.equal(one, other)
