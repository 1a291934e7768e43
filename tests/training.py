"""A tiny training that several tests ask for."""

from __future__ import annotations

from pathlib import Path

from llama_bench.specs import TrainSpec

SHAPE = dict(layers=2, width=16, heads=2, kv_heads=1, ffn_width=32)


def spec_of(prepared: Path, **fields) -> TrainSpec:
    return TrainSpec(
        **{
            **dict(
                model=SHAPE,
                data=prepared.parent.name,
                tokens=40_000,
                context=64,
                batch=4,
                learning_rate=3e-3,
                warmup_tokens=2_000,
                decay_share=0.25,
                decay="sqrt",
                weight_decay=0.1,
                betas=(0.9, 0.95),
                clip=1.0,
                seed=0,
            ),
            **fields,
        }
    )
