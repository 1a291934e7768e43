"""The split: whole groups, the asked share, and no preference for short or long documents."""

import numpy as np
import pytest

from llama_bench.fields import UserError
from llama_bench.measure.text.split import edges, in_order, split


def parts_of(sizes, share, group=None, seed=0):
    rng = np.random.Generator(np.random.PCG64(seed))
    sizes = np.array(sizes)
    group = np.arange(len(sizes)) if group is None else np.array(group)
    rank = rng.integers(0, 2**64, len(sizes), dtype=np.uint64)
    return split(in_order(rank, group), group, sizes, share)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_validation_and_test_have_their_share_each_and_nothing_is_missed(share):
    rng = np.random.Generator(np.random.PCG64(1))
    sizes = rng.lognormal(8, 1.5, 5_000).astype(np.int64) + 1
    parts = parts_of(sizes, share)
    assert sorted(np.concatenate(parts).tolist()) == list(range(5_000))
    for held in (parts.validation, parts.test):
        assert sizes[held].sum() == pytest.approx(share * sizes.sum(), rel=0.1)
    assert sizes[parts.train].sum() == pytest.approx((1 - 2 * share) * sizes.sum(), rel=0.1)


def test_what_is_held_out_is_like_what_trains():
    """Mean log length of held-out documents over many seeds: no drift towards short ones."""
    rng = np.random.Generator(np.random.PCG64(2))
    sizes = rng.lognormal(8, 1.5, 1_000).astype(np.int64) + 1
    logs = np.log(sizes)
    for part in ("validation", "test"):
        means = [logs[getattr(parts_of(sizes, 0.1, seed=s), part)].mean() for s in range(100)]
        error = np.std(means, ddof=1) / 10
        assert abs(np.mean(means) - logs.mean()) < 4 * error + 0.05


def test_groups_stay_together_and_lie_side_by_side():
    group = np.arange(600) % 200
    for part in parts_of(np.full(600, 10), 0.1, group):
        assert (np.diff(edges(group[part])) == 3).all()


def test_a_document_longer_than_the_share_trains():
    for seed in range(20):
        parts = parts_of([10] * 100 + [100_000], 0.005, seed=seed)
        assert 100 in parts.train and min(map(len, parts)) >= 1


@pytest.mark.parametrize("sizes", [[5, 5, 5], [1, 1, 1000], [1000, 1000, 1], [1, 2, 3, 4]])
@pytest.mark.parametrize("share", [0.01, 0.4])
def test_no_part_of_a_small_corpus_is_empty(sizes, share):
    for seed in range(20):
        parts = parts_of(sizes, share, seed=seed)
        assert min(map(len, parts)) >= 1
        assert sum(map(len, parts)) == len(sizes)


def test_two_groups_cannot_be_split():
    with pytest.raises(UserError, match="nothing can be held out"):
        parts_of([1, 1, 1, 1], 0.1, [0, 0, 1, 1])


def test_order_is_by_groups_lowest_rank_then_rank():
    rank = np.array([50, 10, 40, 30, 20], dtype=np.uint64)
    assert in_order(rank, np.array([0, 1, 1, 0, 4])).tolist() == [1, 2, 4, 3, 0]
