"""How long planning takes: loading a study, and `snakemake -n` on one of about 1,000 runs.

    python benchmarks/parse.py

Prints medians of five, with the same study of 40 runs beside it for comparison.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parent.parent


def study(sizes: int, budgets: int, seeds: int) -> dict:
    return {
        "study": "parse",
        "models": {"train": [{"size": 50_000 * 2**n} for n in range(sizes)]},
        "train": {
            "budgets": [10**6 * 2**n for n in range(budgets)],
            "seeds": list(range(seeds)),
        },
    }


def median(command: list[str], folder: Path) -> float:
    """Seconds of the middle one of five runs."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    code = "import llama_bench.study as s; r = s.load({'file': 'study.yaml'}).runs; print(len(r))"
    for asked in (study(5, 3, 1), study(12, 5, 8)):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "study.yaml").write_text(yaml.safe_dump(asked))
            load = [sys.executable, "-c", code]
            runs = subprocess.run(load, cwd=folder, check=True, capture_output=True, text=True)
            plan = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all"]
            plan += ["--snakefile", str(REPOSITORY / "Snakefile"), "--directory", folder]
            plan += ["--config", "file=study.yaml"]
            bare = median([sys.executable, "-c", "pass"], Path(folder))
            loading, planning = median(load, Path(folder)) - bare, median(plan, Path(folder))
            print(
                f"{runs.stdout.strip()} runs: load {loading:.2f} s (without the interpreter's "
                f"start), snakemake -n {planning:.2f} s"
            )


if __name__ == "__main__":
    main()
