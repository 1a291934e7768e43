"""How fast a fit is, and whether its intervals hold. Prints one JSON object.

    python benchmarks/fit.py speed RUNS.csv     4,500 starts, 4,000 draws on the given table, as one
                                                command from a cold start
    python benchmarks/fit.py coverage DONE.jsonl STUDIES [DESIGN ...]
                                                the share of made-up studies (of each design, all
                                                if none is named) whose 90 % intervals hold the
                                                truth

The made-up studies are drawn from published constants (Besiroglu et al. 2024, arXiv 2404.10102) on
three designs, with noise of a size that real studies have; nothing is read from the network. Study
number k of a design is always the same one. DONE.jsonl gets a line for each study: a run that was
stopped, or that is asked for more studies, goes on from there.
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
# Enough for a share; `coverage` makes hundreds of them.
SMALL = {"law": "chinchilla", "starts": 24, "draws": 300}
# The first studies of a design have a back-test, which widens the interval of a new run (and takes
# most of the time); in the others it stays as drawn. Intervals of parameters are the same.
BACK_TESTED = 120


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


def tried(number: int, design: str, settings: dict | None = None) -> dict:
    """Study `number` of a design: which 90 % intervals hold, and what the fit says of that.

    Of each exponent and E; and of a new run, three times as large on three times the tokens:
    `new_run`, or `new_run_back_tested` where the fit has a back-test.
    """
    from llama_bench.derive.fit import fit_table
    from llama_bench.derive.predict import predict_table

    random = np.random.default_rng([DESIGNS.index(design), number])
    runs = study(design, NOISE, random)
    tested = number < BACK_TESTED
    fit = fit_table(runs, SMALL | {"back_test": tested} | (settings or {}))
    inside = {}
    for name in ("E", "alpha", "beta"):
        entry = fit["parameters"][name]
        low = -np.inf if entry["low"] is None else entry["low"]
        high = np.inf if entry["high"] is None else entry["high"]
        inside[name] = bool(low <= TRUTH[name] <= high)
    points = pd.DataFrame({name: [3 * runs[name].max()] for name in ("params", "tokens")})
    said = predict_table(fit, points, levels=(0.9,)).iloc[0]
    new = loss(points["params"][0], points["tokens"][0]) * np.exp(random.normal(0, NOISE))
    new_run = "new_run_back_tested" if fit["back_test"] else "new_run"
    inside[new_run] = bool(said["low_90"] <= new <= said["high_90"])
    foretold = {name: fit["parameters"][name]["covered"] for name in ("E", "alpha", "beta")}
    about = {"design": design, "study": number, "status": fit["status"]}
    return about | {"inside": inside, "foretold": foretold}


def coverage(studies: list[dict]) -> dict:
    """Of studies as `tried` gives them: shares that held, each with its sampling error, and the
    mean share that the fits themselves foretold (`covered`)."""
    statuses = [each["status"] for each in studies]
    shares, foretold = {}, {}
    for name in ("E", "alpha", "beta", "new_run", "new_run_back_tested"):
        held = [each["inside"][name] for each in studies if name in each["inside"]]
        known = [s["foretold"][name] for s in studies if s["foretold"].get(name) is not None]
        if held:
            share = sum(held) / len(held)
            error = (share * (1 - share) / len(held)) ** 0.5
            shares[name] = {"of": len(held), "share": round(share, 4), "error": round(error, 4)}
        foretold |= {name: round(float(np.mean(known)), 4)} if known else {}
    return {
        "studies": len(studies),
        "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
        "covered": shares,
        "foretold": foretold,
    }


def go_on(done: Path, count: int, designs: list[str]) -> dict:
    """Try the studies of each design that `done` lacks, a line for each; coverage by design."""
    lines = done.read_text().splitlines() if done.exists() else []
    found = {(each["design"], each["study"]): each for each in map(json.loads, lines)}
    for number in range(count):
        for design in designs:
            if (design, number) not in found:
                found[design, number] = tried(number, design)
                with open(done, "a") as file:
                    file.write(json.dumps(found[design, number]) + "\n")
    return {
        design: coverage([found[design, number] for number in range(count)]) for design in designs
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
    elif len(words) >= 3 and words[0] == "coverage":
        designs = words[3:] or list(DESIGNS)
        result = {"coverage": go_on(Path(words[1]), int(words[2]), designs)}
    else:
        print(__doc__)
        return 2
    print(json.dumps(machine() | result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
