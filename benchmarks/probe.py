"""How well a probe repeats itself: the same one twice, each time in a fresh process.

    python benchmarks/probe.py repeat [TRIALS] [DEVICE] [KEEP]

For each phase: how far the two medians lie apart, and in how many of the trials the 95 % interval
of each median, as the study's tables have it, holds the other median; for comparison the same of
the bootstrap over single repeats, which takes them for independent. On a CPU the same is told of
processor time, which leaves out what a repeat waited for others. With KEEP, a folder, the records
stay there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from llama_bench import records
from llama_bench.derive.tables import probed, repeats
from llama_bench.shape import shape_of_size
from llama_bench.specs import ProbeSpec


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
    result = records.read(path).result
    return {
        cell["phase"]: cell | {"alone": probed.alone(cell, result["device"]["threads"])}
        for cell in result["cells"]
    }


def told(cell: dict, clock: str, single: bool = False) -> tuple[float, float, float]:
    """Median and its interval's ends, as the study's table of cells has them."""
    rounds = None if single else cell["round_repeats"]
    alone = cell["alone"] if clock == "seconds" and not single else None
    return repeats.median(cell[clock], rounds), *repeats.interval(cell[clock], rounds, alone)


def agree(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Whether the interval of each holds the other's median."""
    return one[1] <= other[0] <= one[2] and other[1] <= one[0] <= other[2]


def repeat(trials: int, device: str, keep: str | None) -> None:
    asked, rows = spec(device), []
    clocks = ("seconds", "processor_seconds") if device == "cpu" else ("seconds",)
    for trial in range(trials):
        with tempfile.TemporaryDirectory() as aside:
            folders = [Path(keep or aside) / f"{trial}-{name}" for name in ("one", "other")]
            cells = [probe(asked, folder) for folder in folders]
        for phase, clock in product(asked.phases, clocks):
            pair = [told(each[phase], clock) for each in cells]
            single = [told(each[phase], clock, single=True) for each in cells]
            apart = abs(pair[0][0] / pair[1][0] - 1)
            rows.append((phase, clock, apart, agree(*pair), agree(*single)))
            shown = " and ".join(f"{m:.6f} ({low:.6f} to {high:.6f})" for m, low, high in pair)
            loads = " and ".join(f"{each[phase]['load'] or 0:.2f}" for each in cells)
            print(
                f"trial {trial + 1}, {phase}: {clock} {shown}, {apart:.1%} apart; "
                f"holds {rows[-1][3]} (single: {rows[-1][4]}); load of others {loads}",
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
    given = dict(enumerate(words))
    repeat(int(given.get(1, 10)), given.get(2, "cpu"), given.get(3))


if __name__ == "__main__":
    main(sys.argv[1:])
