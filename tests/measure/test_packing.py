"""What sequences share is computed once, and nothing is seen that is not one's own."""

import random

import pytest
import torch
from lm_eval.api.instance import Instance
from tiny_llama import CONTEXT, adapter, checkpoint
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

from llama_bench.measure.evaluation import packing
from llama_bench.measure.evaluation.lm import CausalLM
from llama_bench.measure.evaluation.packing import common, mask, rows
from llama_bench.measure.evaluation.stems import Stem, grouped

SHARES = 10_000  # products dear enough that whatever can be shared is


@pytest.fixture(scope="module")
def lm(prepared, tmp_path_factory):
    return adapter(checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", prepared))


def by_hand(model, ids, start):
    """Log-likelihood and greediness of ids[start:] from one pass of the sequence alone."""
    with torch.no_grad():
        table = torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0].double(), dim=-1)
    wanted = torch.tensor(ids[start:])
    found = table[start - 1 :]
    total = found.gather(1, wanted[:, None]).sum().item()
    return total, bool((found.argmax(-1) == wanted).all())


def a_forest(rng, vocabulary=500):
    """Sequences that branch anywhere, some of them twice, some the beginning of another."""
    grown = [[rng.randrange(vocabulary) for _ in range(rng.randrange(2, 40))] for _ in range(4)]
    for _ in range(40):
        stem = rng.choice(grown)
        stem = stem[: rng.randrange(1, len(stem) + 1)]
        grown.append(stem + [rng.randrange(vocabulary) for _ in range(rng.randrange(1, 30))])
    grown += [grown[7], grown[9][:-1] if len(grown[9]) > 2 else grown[9]]
    return [(n, ids, rng.randrange(1, len(ids))) for n, ids in enumerate(grown) if len(ids) > 1]


def test_a_row_is_a_tree():
    (row,) = rows([(0, [1, 2, 3, 4], 1), (1, [1, 2, 5], 2), (2, [1, 6, 7], 2)], SHARES)
    assert row.ids == [1, 2, 3, 6]
    assert row.depth == [0, 1, 2, 1]
    assert row.scored == [(0, [0, 1, 2], [2, 3, 4]), (1, [1], [5]), (2, [3], [7])]
    seen = (mask([row], 0, torch.float32, "cpu")[0, 0] == 0).int().tolist()
    assert seen == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]


def test_every_token_sees_its_own_path():
    for seed in range(6):
        sequences = sorted(a_forest(random.Random(seed), 4), key=lambda each: each[1])
        for row in rows(sequences, SHARES):
            seen = (mask([row], 0, torch.float32, "cpu") == 0) if row.branches else None
            for number, places, foretold in row.scored:
                (whole,) = [ids for n, ids, _ in sequences if n == number]
                assert foretold == whole[-len(foretold) :]
                for depth, place in enumerate(places, len(whole) - 1 - len(places)):
                    path = range(place + 1) if seen is None else seen[0, 0, place].nonzero()[:, 0]
                    assert [row.ids[at] for at in path] == whole[: depth + 1]
                    assert [row.depth[at] for at in path] == list(range(depth + 1))


def test_sequences_that_do_not_branch_need_no_mask():
    laid = list(rows([(0, [1, 2, 3], 1), (1, [7, 8, 9, 9], 1)], SHARES))
    assert len(laid) == 2 and mask(laid, 0, torch.float32, "cpu") is None


def test_a_row_does_not_grow_where_attention_would_cost_more():
    wide, narrow = 10_000, 10
    pair = [(0, [1] * 10 + [2] * 200, 1), (1, [1] * 10 + [3] * 200, 1)]
    assert len(list(rows(pair, wide))) == 1 and len(list(rows(pair, narrow))) == 2
    many = [(n, [1, n, *range(30)], 1) for n in range(200)]
    assert all(len(row.ids) <= packing.LONGEST for row in rows(many, 10**9))
    assert len(list(rows(many, None))) == len(many)


@pytest.mark.parametrize("products", [SHARES, 100, None])
def test_numbers_are_those_of_each_sequence_alone(lm, monkeypatch, products):
    sequences = a_forest(random.Random(1))
    monkeypatch.setattr(lm, "_products", products)
    answers = {number: rest for number, *rest in lm.score(sequences)}
    assert len(answers) == len(sequences)
    for number, ids, start in sequences:
        total, greedy = by_hand(lm.model, ids, start)
        assert answers[number] == [pytest.approx(total, rel=1e-4, abs=1e-4), greedy]


def test_examples_before_every_question_are_passed_once(lm, monkeypatch):
    rng = random.Random(2)
    shots = [rng.randrange(500) for _ in range(300)]
    sequences = []
    for question in range(30):
        stem = shots + [rng.randrange(500) for _ in range(60)]
        for choice in range(3):
            own = [rng.randrange(500) for _ in range(1 + choice * 4)]
            sequences.append((3 * question + choice, stem + own, len(stem)))
    passed = []
    inner = lm.model.forward
    monkeypatch.setattr(
        lm.model, "forward", lambda **k: passed.append(k["input_ids"].numel()) or inner(**k)
    )
    answers = {number: rest for number, *rest in lm.score(sequences)}
    monkeypatch.undo()
    alone = sum(len(ids) for _, ids, _ in sequences)
    assert passed[0] == 300 and sum(passed) < 0.15 * alone
    for number, ids, start in sequences:
        total, greedy = by_hand(lm.model, ids, start)
        assert answers[number] == [pytest.approx(total, rel=1e-4), greedy]


def test_stems_are_the_beginnings_that_save_the_most():
    def subject(name, questions, stem=400):
        shots = [1, 2, 3, *[name] * stem]
        return [(0, [*shots, 100 + n, *[n] * 50], len(shots) + 20) for n in range(questions)]

    one, other = subject(5, 60), subject(6, 60)
    found = grouped(one + other)
    assert [(stem, len(group)) for stem, group in found] == [(403, 60), (403, 60)]
    assert [stem for stem, _ in grouped(subject(5, 3))] == [0]  # too few to pay for a pass
    apart = [(n, [n, *[n] * 50], 20) for n in range(60)]
    found = grouped(apart + one)
    assert [(stem, len(group)) for stem, group in found] == [(0, 60), (403, 60)]


def test_nothing_scored_is_in_a_stem():
    sequences = [(n, [*[4] * 300, n, *[n] * 30], 100 + n) for n in range(100)]
    ((stem, group),) = grouped(sequences)
    assert stem == 99 and len(group) == 100


def test_deeply_nested_beginnings_come_to_an_end():
    sequences = [(n, [1] * (n + 2), n + 1) for n in range(1500)]
    assert sum(len(group) for _, group in grouped(sequences)) == 1500


def test_a_stem_is_not_changed_by_what_goes_on_from_it(lm):
    with torch.inference_mode():
        stem = Stem(lm.model, list(range(40)))
        kept = [layer.keys.clone() for layer in stem.cache.layers]
        ids = torch.tensor([[7, 8, 9], [1, 2, 3]])
        lm.model(input_ids=ids, past_key_values=stem.before(2), use_cache=False)
    for layer, keys in zip(stem.cache.layers, kept, strict=True):
        assert torch.equal(layer.keys, keys) and layer.keys.shape[-2] == 40


def test_a_sliding_window_keeps_its_own_masks(prepared):
    """Its layers do not see all that came before: a mask of ours would show it to them."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=16,
        max_position_embeddings=CONTEXT, initializer_range=0.3,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(prepared.parent / "tokenizer")
    lm = CausalLM(MistralForCausalLM(config).eval(), tokenizer)
    stem = "for line in lines:\n    if line.startswith('#') and not line.endswith('x'):\n    "
    pairs = [(stem, " print(line)"), (stem, " continue"), ("import ", "sys")]
    asked = [
        Instance("loglikelihood", {}, pair, 0, metadata=("t", doc, 1))
        for doc, pair in enumerate(pairs)
    ]
    for answer, pair in zip(lm.loglikelihood(asked), lm.encoding.pairs(pairs), strict=True):
        total, greedy = by_hand(lm.model, pair.ids, pair.start)
        assert answer == (pytest.approx(total, rel=1e-4), greedy)


def test_how_much_two_sequences_share():
    rng = random.Random(0)
    for _ in range(300):
        one = [rng.randrange(2) for _ in range(rng.randrange(12))]
        other = [rng.randrange(2) for _ in range(rng.randrange(12))]
        pairs = list(zip(one, other, strict=False))
        differing = [place for place, (a, b) in enumerate(pairs) if a != b]
        assert common(one, other) == (differing[0] if differing else len(pairs))
