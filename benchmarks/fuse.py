"""How fast models become one, beside copying their files. Prints one JSON object.

    OMP_NUM_THREADS=1 python benchmarks/fuse.py [MEMBERS] [MEGABYTES] [ROUNDS]

Makes members (8 of 1,000 MB by default: Llamas in bfloat16) in a temporary folder and then, round
by round, reads them all to copy their files and to average them, each in a process of its own; what
one writes is deleted before the other begins. `ratio` is the copy's time over ours, in the middle
of the rounds. Once before the clock starts, every file is read, so that both find the same in the
page cache. In the end the verb itself fuses them as a study would, losses of all members and of the
result included, on a few hundred tokens of held-out text (on how many, memory does not depend).
`peak_bytes` are the highest resident sets of the average's process and of the verb's, interpreter,
libraries and mapped files included.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llama_bench.specs import FuseSpec, Member, Pretrained

ARMS = ("make", "copy", "average")
VOCAB, CONTEXT = 32_000, 64
SHAPE = {"width": 2048, "heads": 32, "kv_heads": 32, "ffn_width": 5632}
TEXTS = 120  # documents of the corpus that losses are of


def make(folder: Path, members: int, size: int) -> None:
    """A prepared corpus, and Llamas of at least `size` bytes; the numbers do not matter."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaForCausalLM

    from llama_bench.measure import model
    from llama_bench.shape import Shape

    prepared = _prepared(folder)
    one = Shape(layers=1, **SHAPE)
    a_layer = Shape(layers=2, **SHAPE).size - one.size
    layers = max(1, math.ceil((size / 2 - VOCAB * one.width) / a_layer))
    config = model.config_of(Shape(layers=layers, **SHAPE), VOCAB, CONTEXT)
    config.dtype = torch.bfloat16
    with torch.device("meta"):
        shapes = {name: w.shape for name, w in LlamaForCausalLM(config).named_parameters()}
    for member in range(members):
        target = folder / f"member-{member}"
        config.save_pretrained(target)
        for path in (prepared / "tokenizer").iterdir():
            shutil.copy(path, target)
        generator = torch.Generator().manual_seed(member)
        weights = {
            name: torch.ones(shape, dtype=torch.bfloat16)
            if len(shape) == 1
            else torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
            for name, shape in shapes.items()
        }
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def _prepared(folder: Path) -> Path:
    from llama_bench.measure.job import carry_out
    from llama_bench.sources import file_digest
    from llama_bench.specs import Corpus, PrepareSpec

    texts = folder / "texts.jsonl"
    words = ("model", "of", "many", "members", "mean", "loss", "weight", "a", "the", "text")
    lines = [
        " ".join(words[(number * step + step) % len(words)] for step in range(3, 20))
        + f" {number * 7919}"
        for number in range(TEXTS)
    ]
    texts.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    corpus = Corpus(source="files", files=(file_digest(texts),), text_key="text")
    spec = PrepareSpec(corpus=corpus, vocab_size=300, held_out=0.1)
    record = folder / "prepare" / spec.id / "record.json"
    carry_out("prepare", spec.canonical(), record, [texts])
    return record.parent


def copied(folders: list[Path], target: Path) -> None:
    for folder in folders:
        shutil.copytree(folder, target / folder.name)


def averaged(folders: list[Path], target: Path) -> None:
    from llama_bench.measure.fusing import averaging

    averaging.write(folders, averaging.in_every_tensor([1 / len(folders)] * len(folders)), target)


def arm(name: str, folder: Path, target: Path) -> None:
    """The process of one arm: imports first, then the clock."""
    import torch

    from llama_bench.measure.fusing import averaging  # noqa: F401

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    folders = sorted(folder.glob("member-*"))
    began = time.perf_counter()
    {"copy": copied, "average": averaged}[name](folders, target)
    print(json.dumps({"seconds": time.perf_counter() - began}))


def ran(words: list[str]) -> dict:
    """A process of its own: its highest resident set, its seconds, and what it printed last."""
    began = time.perf_counter()
    started = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    said = started.stdout.read()
    _, ended, used = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(ended)
    if ended:
        raise SystemExit(f"{' '.join(words)[:200]} ended with {started.returncode}")
    found = {"seconds": time.perf_counter() - began, "peak_bytes": used.ru_maxrss * 1024}
    return found | (json.loads(said.splitlines()[-1]) if said.startswith("{") else {})


def verb(folder: Path) -> dict:
    """What a study would run."""
    (prepared,) = folder.glob("prepare/*/record.json")
    folders = sorted(folder.glob("member-*"))
    members = tuple(Member(pretrained=Pretrained(digest=path.name)) for path in folders)
    spec = FuseSpec(
        members=members, method="uniform", data=prepared.parent.name, allow_unrelated=True
    ).canonical()
    output = folder / "fuse" / "record.json"
    found = ran(["-m", "llama_bench", "fuse", spec, str(output), str(prepared), *map(str, folders)])
    record = json.loads(output.read_text())
    if record["status"] != "ok":
        raise SystemExit(f"fuse: {record['status']}: {record['reason']}")
    tokens = record["result"]["validation_tokens"]
    return {"verb_seconds": round(found["seconds"], 1), "verb_peak_bytes": found["peak_bytes"]} | {
        "verb_tokens": tokens
    }


def main(words: list[str]) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if words and words[0] == "make":
        return make(Path(words[1]), int(words[2]), int(words[3]))
    if words and words[0] in ARMS:
        return arm(words[0], Path(words[1]), Path(words[2]))
    members = int(words[0]) if words else 8
    size = int(float(words[1]) * 1e6) if len(words) > 1 else 10**9
    rounds = int(words[2]) if len(words) > 2 else 3
    taken: dict[str, list[dict]] = {name: [] for name in ARMS[1:]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # this process stays small: a child's highest resident set begins with its parent's
        ran([__file__, "make", name, str(members), str(size)])
        read = 0
        for path in folder.glob("member-*/model.safetensors"):
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    read += len(block)
        for _ in range(rounds):
            for which, each in taken.items():
                each.append(ran([__file__, which, name, str(folder / "target")]))
                shutil.rmtree(folder / "target", ignore_errors=True)
        whole = verb(folder)
    middle = {which: statistics.median(one["seconds"] for one in taken[which]) for which in taken}
    print(
        json.dumps(
            {
                "members": members,
                "bytes": read,
                "rounds": rounds,
                "threads": int(os.environ["OMP_NUM_THREADS"]),
                "seconds_copy": round(middle["copy"], 2),
                "seconds_average": round(middle["average"], 2),
                "ratio": round(middle["copy"] / middle["average"], 2),
                "peak_bytes": max(one["peak_bytes"] for one in taken["average"]),
                **whole,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
