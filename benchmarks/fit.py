"""How fast a fit is, and whether its intervals hold. Prints one JSON object.

    python benchmarks/fit.py speed RUNS.csv     4,500 starts, 4,000 draws on the given table, as one
                                                command from a cold start
    python benchmarks/fit.py coverage [STUDIES] the share of made-up studies (default 1000) whose
                                                90 % intervals hold the truth

The made-up studies are drawn from published constants (Besiroglu et al. 2024, arXiv 2404.10102) on
three designs, with noise of a size that real studies have; nothing is read from the network.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

TRUTH = {"E": 1.8172, "A": 477.8, "B": 2143.0, "alpha": 0.3473, "beta": 0.3672}
SPEED = {"law": "chinchilla", "starts": 4500, "draws": 4000, "back_test": False}
# Sizes, tokens per size, noise of log loss: a small study, a grid, and scattered runs.
DESIGNS = ("5x3", "8x6", "240")
NOISE = 0.005


def loss(params, tokens):
    """Hoffmann's law with the constants above, nats per token."""
    return TRUTH["E"] + TRUTH["A"] / params ** TRUTH["alpha"] + TRUTH["B"] / tokens ** TRUTH["beta"]


def study(design: str, noise: float, random: np.random.Generator) -> pd.DataFrame:
    """A table of runs of one design, drawn from the law."""
    if design == "5x3":
        params = np.repeat(np.geomspace(1e6, 3e7, 5), 3)
        tokens = params * np.tile([10, 20, 40], 5)
    elif design == "8x6":
        params = np.repeat(np.geomspace(5e7, 5e9, 8), 6)
        tokens = np.tile(np.geomspace(1e9, 1e11, 6), 8)
    else:
        flops = 10 ** random.uniform(18, 21.5, int(design))
        params = np.sqrt(flops / 120) * np.exp(random.normal(0, 1, int(design)))
        tokens = flops / 6 / params
    noisy = loss(params, tokens) * np.exp(random.normal(0, noise, len(params)))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": noisy})


def coverage(studies: int, design: str, settings: dict | None = None, seed: int = 0) -> dict:
    """Shares of `studies` whose 90 % interval holds: each exponent and E, and a new, larger run."""
    from llama_bench.derive.fit import fit_table
    from llama_bench.derive.predict import predict_table

    random = np.random.default_rng(seed)
    inside: dict[str, list[bool]] = {}
    statuses: dict[str, int] = {}
    chosen = {"law": "chinchilla", "starts": 24, "draws": 300} | (settings or {})
    for _ in range(studies):
        runs = study(design, NOISE, random)
        fit = fit_table(runs, chosen)
        statuses[fit["status"]] = statuses.get(fit["status"], 0) + 1
        for name in ("E", "alpha", "beta"):
            entry = fit["parameters"][name]
            low = -np.inf if entry["low"] is None else entry["low"]
            high = np.inf if entry["high"] is None else entry["high"]
            inside.setdefault(name, []).append(low <= TRUTH[name] <= high)
        points = pd.DataFrame(
            {"params": [3 * runs["params"].max()], "tokens": [3 * runs["tokens"].max()]}
        )
        said = predict_table(fit, points, levels=(0.9,)).iloc[0]
        new = loss(points["params"][0], points["tokens"][0]) * np.exp(random.normal(0, NOISE))
        inside.setdefault("new_run", []).append(said["low_90"] <= new <= said["high_90"])
    return {
        "design": design,
        "studies": studies,
        "statuses": statuses,
        "covered": {name: float(np.mean(held)) for name, held in inside.items()},
    }


def speed(runs: str) -> dict:
    """Seconds of the whole command, and the objective it found."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "fit.json"
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "llama_bench", "fit", json.dumps(SPEED), str(output), runs],
            check=True,
        )
        seconds = time.perf_counter() - began
        fit = json.loads(output.read_text())
    return {
        "seconds": round(seconds, 2),
        "objective": fit["objective"],
        "standard_errors": {
            name: fit["parameters"][name]["standard_error"] for name in ("E", "alpha", "beta")
        },
    }


def machine() -> dict:
    """Where the figures were taken."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main(words: list[str]) -> int:
    if len(words) == 2 and words[0] == "speed":
        result = speed(words[1])
    elif words[:1] == ["coverage"]:
        studies = int(words[1]) if len(words) > 1 else 1000
        designs = words[2:] or DESIGNS
        result = {"coverage": [coverage(studies, design) for design in designs]}
    else:
        print(__doc__)
        return 2
    print(json.dumps(machine() | result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
