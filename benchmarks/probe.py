"""How well a probe repeats itself: the same one twice, each time in a fresh process.

    python benchmarks/probe.py repeat [TRIALS] [DEVICE]

For each phase: how far the two medians lie apart, and in how many of the trials the 95 % bootstrap
interval of each median holds the other median. Repeats that follow each other are alike (a
neighbour works for seconds), so whole blocks of them are drawn (Kuensch 1989, the moving blocks
bootstrap); single ones are shown for comparison. On a CPU the same is told of processor time, which
leaves out what a repeat waited for others.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from llama_bench import records
from llama_bench.shape import shape_of_size
from llama_bench.specs import ProbeSpec

DRAWS = 2000


def spec(device: str) -> ProbeSpec:
    """A model that takes milliseconds a step, as the larger ones of the default study do."""
    return ProbeSpec(
        model=shape_of_size(700_000 if device == "cpu" else 1_000_000_000),
        vocab_size=1024,
        device=device,
        precision="float32" if device == "cpu" else "bfloat16",
        phases=("prefill", "decode", "train"),
        batches=(1,),
        contexts=(256,),
        repeats=10,
        seconds=5.0,
    )


def probe(asked: ProbeSpec, folder: Path) -> dict[str, dict]:
    path = folder / "record.json"
    command = [sys.executable, "-m", "llama_bench", "probe", asked.canonical(), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return {cell["phase"]: cell for cell in records.read(path).result["cells"]}


def interval(seconds: list[float], block: int) -> tuple[float, float]:
    """95 % interval of the median, from blocks of so many repeats in a row."""
    times, draw = np.array(seconds), np.random.default_rng(0)
    blocks = -(-len(times) // block)
    starts = draw.integers(0, len(times) - block + 1, (DRAWS, blocks, 1))
    drawn = times[(starts + np.arange(block)).reshape(DRAWS, -1)[:, : len(times)]]
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def agree(one: list[float], other: list[float], blocks: bool) -> bool:
    """Whether the interval of each holds the other's median."""
    return all(
        low <= np.median(theirs) <= high
        for ours, theirs in ((one, other), (other, one))
        for low, high in [interval(ours, max(1, round(len(ours) ** 0.5)) if blocks else 1)]
    )


def repeat(trials: int, device: str) -> None:
    asked, rows = spec(device), []
    clocks = ("seconds", "processor_seconds") if device == "cpu" else ("seconds",)
    for trial in range(trials):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            first, second = probe(asked, Path(one)), probe(asked, Path(other))
        for phase, clock in product(asked.phases, clocks):
            pair = [first[phase][clock], second[phase][clock]]
            medians = [np.median(times) for times in pair]
            apart = abs(medians[0] / medians[1] - 1)
            held = [agree(*pair, blocks) for blocks in (True, False)]
            rows.append((phase, clock, apart, *held))
            loads = [f"{cell[phase]['load'] or 0:.2f}" for cell in (first, second)]
            print(
                f"trial {trial + 1}, {phase}: {clock} {medians[0]:.6f} and {medians[1]:.6f}, "
                f"{apart:.1%} apart; holds {held[0]} (single: {held[1]}); "
                f"load of others {' and '.join(loads)}",
                flush=True,
            )
    for phase, clock in product(asked.phases, clocks):
        chosen = [row for row in rows if row[:2] == (phase, clock)]
        apart = sorted(row[2] for row in chosen)
        print(
            f"{phase}, {clock}: medians {np.median(apart):.1%} apart in the middle trial, "
            f"{apart[-1]:.1%} at most; intervals hold in {sum(row[3] for row in chosen)} of "
            f"{trials} (single repeats drawn: {sum(row[4] for row in chosen)})"
        )


def main(words: list[str]) -> None:
    if not words or words[0] != "repeat":
        sys.exit(__doc__)
    repeat(int(words[1]) if len(words) > 1 else 10, words[2] if len(words) > 2 else "cpu")


if __name__ == "__main__":
    main(sys.argv[1:])
