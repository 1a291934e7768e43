"""How fast models become one, beside copying their files. Prints one JSON object.

    OMP_NUM_THREADS=1 python benchmarks/fuse.py [MEMBERS] [MEGABYTES] [ROUNDS]

Makes members (8 of 1,000 MB by default, bfloat16, tensors of a Llama's sizes) in a temporary folder
and then, round by round, reads them all to copy their files and to average them, each in a process
of its own; what one writes is deleted before the other begins. `ratio` is the copy's time over
ours, in the middle of the rounds; `peak_bytes` is the highest resident set of our process,
interpreter and libraries included, `added_bytes` without them. Once before the clock starts, every
file is read, so that both find the same in the page cache.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WIDTH, FFN_WIDTH, VOCAB = 2048, 5632, 32_000
ARMS = ("copy", "fuse")


def make_members(folder: Path, members: int, size: int) -> list[Path]:
    """Tensors of a Llama's sizes, about `size` bytes a member; the numbers do not matter."""
    import torch
    from safetensors.torch import save_file

    shapes = {"model.embed_tokens.weight": (VOCAB, WIDTH)}
    layer = {"self_attn.q_proj": (WIDTH, WIDTH), "mlp.down_proj": (WIDTH, FFN_WIDTH)}
    numbers, number = VOCAB * WIDTH, 0
    while 2 * numbers < size:
        for name, shape in layer.items():
            shapes[f"model.layers.{number}.{name}.weight"] = shape
            numbers += shape[0] * shape[1]
        shapes[f"model.layers.{number}.input_layernorm.weight"] = (WIDTH,)
        number += 1
    folders = []
    for member in range(members):
        target = folder / f"member-{member}"
        target.mkdir()
        generator = torch.Generator().manual_seed(member)
        weights = {
            name: torch.randn(shape, generator=generator, dtype=torch.bfloat16)
            for name, shape in shapes.items()
        }
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
        folders.append(target)
    return folders


def copied(folders: list[Path], target: Path) -> None:
    for folder in folders:
        shutil.copytree(folder, target / folder.name)


def fused(folders: list[Path], target: Path) -> None:
    from llama_bench.measure.fusing import averaging

    averaging.write(folders, averaging.in_every_tensor([1 / len(folders)] * len(folders)), target)


def arm(name: str, folder: Path, target: Path) -> None:
    """The process of one arm: imports first, then the clock."""
    import torch

    from llama_bench.measure import memory
    from llama_bench.measure.fusing import averaging  # noqa: F401

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    meter = memory.meter(torch.device("cpu"))
    folders = sorted(folder.glob("member-*"))
    began = time.perf_counter()
    {"copy": copied, "fuse": fused}[name](folders, target)
    seconds = time.perf_counter() - began
    added = meter.peaks()["peak_bytes"]
    peak = meter.baseline_bytes + added
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "added_bytes": added}))


def measured(name: str, folder: Path) -> dict:
    target = folder / "target"
    words = [sys.executable, __file__, name, str(folder), str(target)]
    try:
        ended = subprocess.run(words, check=True, capture_output=True, text=True)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    return json.loads(ended.stdout.splitlines()[-1])


def main(words: list[str]) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if words and words[0] in ARMS:
        return arm(words[0], Path(words[1]), Path(words[2]))
    members = int(words[0]) if words else 8
    size = int(float(words[1]) * 1e6) if len(words) > 1 else 10**9
    rounds = int(words[2]) if len(words) > 2 else 3
    taken: dict[str, list[dict]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        read = 0
        for member in make_members(folder, members, size):
            with open(member / "model.safetensors", "rb") as file:
                while block := file.read(2**20):
                    read += len(block)
        for _ in range(rounds):
            for which in ARMS:
                taken[which].append(measured(which, folder))
    middle = {which: statistics.median(one["seconds"] for one in taken[which]) for which in ARMS}
    print(
        json.dumps(
            {
                "members": members,
                "bytes": read,
                "rounds": rounds,
                "threads": int(os.environ["OMP_NUM_THREADS"]),
                "seconds_copy": round(middle["copy"], 2),
                "seconds_fuse": round(middle["fuse"], 2),
                "ratio": round(middle["copy"] / middle["fuse"], 2),
                "peak_bytes": max(one["peak_bytes"] for one in taken["fuse"]),
                "added_bytes": max(one["added_bytes"] for one in taken["fuse"]),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
