"""The verbs: `python -m llama_bench VERB SPEC OUTPUT [INPUT ...]`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from llama_bench.fields import UserError, unknown
from llama_bench.specs import SPECS

MEASURE = tuple(SPECS)
DERIVE = ("forecast", "collect", "fit", "predict", "plot", "report")
USAGE = f"""usage: python -m llama_bench VERB SPEC OUTPUT [INPUT ...]

  measure: {", ".join(MEASURE)}
           SPEC is JSON text, OUTPUT a record.json, INPUTs the records and files it rests on
           evaluate ... --then SPEC OUTPUT [INPUT ...]: another suite of the same model, unless
           somebody has begun it
  derive:  {", ".join(DERIVE)}
           fit LAW FIT.json RUNS.csv           a law on any table of runs
           predict FIT.json OUT.csv POINTS.csv point and interval for each row
  schema - FILE                                the JSON schema of config.yaml

The whole study: snakemake --cores all"""


def main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    verb, rest = words[0], words[1:]
    try:
        if verb not in (*MEASURE, *DERIVE, "schema"):
            raise UserError(unknown(verb, [*MEASURE, *DERIVE, "schema"], "verb"))
        _call(verb, *_asked(verb, rest))
    except UserError as error:
        print(f"llama_bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _asked(verb: str, words: list[str]) -> list[tuple[str, Path, list[Path]]]:
    """SPEC, OUTPUT and INPUTs of each that is asked for. Raises UserError."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "--then" and verb == "evaluate":
            parts.append([])
        else:
            parts[-1].append(word)
    if any(len(part) < 2 for part in parts):
        raise UserError(f"{verb}: needs SPEC and OUTPUT\n{USAGE}")
    return [(spec, Path(output), [*map(Path, inputs)]) for spec, output, *inputs in parts]


def _call(verb: str, asked: tuple[str, Path, list[Path]], *others) -> None:
    spec, output, inputs = asked
    if verb == "schema":
        from llama_bench.config_file import write_schema

        write_schema(output)
    elif verb in MEASURE:
        from llama_bench.measure.job import Failure, carry_out

        try:
            carry_out(verb, spec, output, inputs, others)
        except Failure as failure:
            print(f"llama_bench: {failure}", file=sys.stderr)
            sys.exit(1)
    else:
        if verb == "collect":
            from llama_bench.study import listing_of

            spec = listing_of(spec)
        importlib.import_module(f"llama_bench.derive.{verb}").run(spec, output, inputs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
