"""How fast documents become tokens, from the process's start to its record. Prints one JSON object.

    OMP_NUM_THREADS=1 python benchmarks/prepare.py [PATH ...]

Of python-stdlib, or of the given files of text. `stages` are the seconds of a second run in this
process, whose modules are loaded already. `processor_seconds` and `peak_bytes` are the job's own
process, without workers.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llama_bench import sources
from llama_bench.measure import prepare
from llama_bench.records import read
from llama_bench.specs import PrepareSpec


class Stages:
    """A job's progress, of which the time of every message is kept."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._stage, self._began = None, time.perf_counter()

    def __call__(self, done: float, of: float, note: str = "") -> None:
        if self._stage != note:
            self.say(note)

    def say(self, text: str) -> None:
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = round(now - self._began, 2)
        self._stage, self._began = text, now


def main(paths: list[str]) -> None:
    given = paths or "python-stdlib"
    files = sources.corpus_files(given)
    corpus = sources.corpus(given, "text", None)
    spec = PrepareSpec(corpus=corpus, vocab_size=1024, held_out=0.05)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "run", "record.json")
        words = [sys.executable, "-m", "llama_bench", "prepare", spec.canonical()]
        began = time.perf_counter()
        subprocess.run([*words, str(record), *map(str, files)], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = read(record).result
        stages, again = Stages(), Path(folder, "again")
        again.mkdir()
        prepare.run(spec, again, files, stages)
        stages.say("end")
    size = sum(result["bytes"].values())
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count())
    print(
        json.dumps(
            {
                "corpus": corpus.source,
                "bytes": size,
                "documents": sum(result["documents"].values()),
                "threads": threads,
                "seconds": round(seconds, 2),
                "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
                "megabytes_per_second_per_core": round(size / 1e6 / seconds / threads, 2),
                "peak_bytes": used.ru_maxrss * 1024,
                "stages": stages.seconds,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
