"""Identities that finished runs rest on. A change here orphans results: raise `recipe` instead."""

import pytest

from llama_bench.shape import Shape, shape_of_size
from llama_bench.specs import (
    Corpus,
    EvaluateSpec,
    ExamplesSpec,
    FinetuneSpec,
    FuseSpec,
    Member,
    PrepareSpec,
    ProbeSpec,
    TasksSpec,
    TrainSpec,
)

SHAPE = dict(layers=2, width=48, heads=3, kv_heads=3, ffn_width=112)
TRAIN = dict(
    model=SHAPE,
    data="python-stdlib-v2048-00000000",
    tokens=200_000,
    context=256,
    batch=4,
    learning_rate=3e-3,
    warmup_tokens=20_000,
    decay_share=0.2,
    decay="sqrt",
    weight_decay=0.1,
    betas=(0.9, 0.95),
    clip=1.0,
    seed=0,
)
CASES = {
    "prepare": (
        PrepareSpec(
            corpus=Corpus(source="python-stdlib", version="3.12.0"), vocab_size=2048, held_out=0.05
        ),
        "python-stdlib-v2048-179c3473",
    ),
    "tasks": (
        TasksSpec(data="python-stdlib-v2048-00000000", items=120, grammar=None),
        "held-out-120-5ec579f3",
    ),
    "train": (TrainSpec(**TRAIN), "50.9k-200k-s0-258d117e"),
    "evaluate": (
        EvaluateSpec(train="50.9k-200k-s0-00000000", tasks=("heldout_next_line",)),
        "50.9k-200k-s0-e8f8fcd2",
    ),
    "examples": (
        ExamplesSpec(
            task="finetune_part",
            data="python-stdlib-v2048-00000000",
            source="part",
            items=1200,
            validation=0.15,
            test=0.25,
        ),
        "finetune_part-8a7689aa",
    ),
    "finetune": (
        FinetuneSpec(
            base=Member(verb="train", run="50.9k-200k-s0-00000000"),
            data="python-stdlib-v2048-00000000",
            examples="finetune_part-00000000",
            steps=200,
            validate_every=20,
            patience=3,
            batch=8,
            context=256,
            learning_rate=1e-3,
        ),
        "50.9k-200k-s0-finetune_part-7d9a654a",
    ),
    "fuse": (
        FuseSpec(
            members=(
                Member(verb="train", run="50.9k-200k-s0-00000000"),
                Member(verb="train", run="50.9k-200k-s0c1-00000000"),
            ),
            method="softmax",
            temperature=1,
            data="python-stdlib-v2048-00000000",
        ),
        "softmax-of-2-50.9k-200k-s0-57a97481",
    ),
    "probe": (
        ProbeSpec(
            model=SHAPE,
            vocab_size=2048,
            device="cpu",
            phases=("prefill", "decode"),
            batches=(1, 4),
            contexts=(64,),
            repeats=5,
            seconds=0.3,
        ),
        "50.9k-cpu-60ae3596",
    ),
}


@pytest.mark.parametrize("verb", CASES)
def test_pinned(verb):
    spec, pinned = CASES[verb]
    assert spec.id == pinned


def test_three_spellings_are_one_run():
    ids = {TrainSpec(**{**TRAIN, "learning_rate": rate}).id for rate in (3e-3, "3e-3", 0.003)}
    ids |= {TrainSpec(**{**TRAIN, "tokens": tokens}).id for tokens in ("200k", "2e5", "0.2M")}
    assert len(ids) == 1


def test_defaults_written_out_are_the_same_run():
    assert TrainSpec(**TRAIN, precision="float32", recipe=3).id == TrainSpec(**TRAIN).id


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"tokens": 400_000}, {"learning_rate": 1e-3}, {"data": "other-1"}]
)
def test_what_moves_a_number_is_another_run(change):
    assert TrainSpec(**{**TRAIN, **change}).id != TrainSpec(**TRAIN).id


def test_branches_of_one_trunk_share_it_and_others_do_not():
    short, long = (TrainSpec(**{**TRAIN, "tokens": tokens}) for tokens in (200_000, 400_000))
    assert short.trunk == long.trunk
    assert short.trunk != TrainSpec(**{**TRAIN, "seed": 1}).trunk


def test_shapes_of_the_default_sizes_are_pinned():
    """A size is identity too: another shape for it would rename every run of the study."""
    sizes = (22_000, 50_000, 115_000, 280_000, 710_000)
    assert {size: shape_of_size(size) for size in sizes} == {
        22_000: Shape(layers=2, width=32, heads=2, ffn_width=72),
        50_000: Shape(layers=2, width=48, heads=3, ffn_width=112),
        115_000: Shape(layers=2, width=64, heads=4, ffn_width=208),
        280_000: Shape(layers=3, width=96, heads=6, ffn_width=216),
        710_000: Shape(layers=4, width=128, heads=4, ffn_width=288),
    }
