"""Whether a training's layers are compiled: chosen by measuring, once per machine, then kept.

torch.compile fuses what lies between the products. It costs seconds to minutes, changes the last
digits of a loss, and does not always pay. A GPU always compiles. On a CPU the first run of a shape,
precision and number of threads that comes along decides for all that follow on the machine: alike
runs must be carried out alike, or a branch would not equal a run of its own. It tries only if it
has so long to go that the attempt is paid back. Compiled code is kept on disk between runs.
"""

from __future__ import annotations

import os
import statistics
import time

import torch

from llama_bench.measure.training import machine_facts, world
from llama_bench.measure.training.engine import Engine
from llama_bench.specs import TrainSpec

WORTH_TRYING_SECONDS = 150.0  # of plain training left; an attempt costs some 10 to 40
WORTH_KEEPING = 1.05  # times as fast
TIMED_STEPS = 5


def choose(engine: Engine, spec: TrainSpec, before: bool | None, steps: int, batch, say) -> None:
    """Have `engine` compiled or not, for `steps` steps; `before` is how its state came about."""
    _keep_compiled_code(engine.device)
    if before is not None:
        wanted = before
    elif engine.device.type == "cuda":
        wanted = True
    elif world.processes() > 1:
        wanted = False  # measuring apart, processes might disagree
    else:
        wanted = _measured_choice(engine, spec, steps, batch, say)
    if wanted and not engine.compiled:
        _compiles(engine, batch, say)
    elif not wanted:
        engine.be_compiled(False)


def subject(engine: Engine, spec: TrainSpec) -> dict:
    """What a choice is about: the machine, and all that shapes a step."""
    work = {"model": spec.model.model_dump(), "precision": spec.precision}
    work |= {"vocab_size": engine.objective.vocab_size, "context": spec.context}
    work |= {"micro_batch": engine.micro_batch, "checkpointed": engine.objective.checkpointed}
    return machine_facts.described(engine.device) | work


def _measured_choice(engine: Engine, spec: TrainSpec, steps: int, batch, say) -> bool:
    key = subject(engine, spec)
    known = machine_facts.recall("compile", key)
    if known is not None:
        return known["compiled"]
    plain = _seconds(engine, batch)
    fact = {"compiled": False, "plain_seconds": plain, "compiled_seconds": None}
    if plain * steps > WORTH_TRYING_SECONDS:
        began = time.monotonic()
        if _compiles(engine, batch, say):
            fact["compiled_seconds"] = compiled = _seconds(engine, batch)
            fact["compiled"] = compiled * WORTH_KEEPING < plain
            say(
                f"a step takes {1e3 * plain:.1f} ms plain, {1e3 * compiled:.1f} ms compiled "
                f"(tried in {time.monotonic() - began:.0f} s)"
            )
    return machine_facts.keep("compile", key, fact)["compiled"]


def _compiles(engine: Engine, batch, say) -> bool:
    """Compile, and take one step; False, with one line, where this machine cannot."""
    from torch._dynamo.exc import TorchDynamoException  # seconds to import, and rarely needed
    from torch._inductor.exc import InductorError

    engine.be_compiled(True)
    try:
        engine.gradients(batch, shared=engine.strategy == "fsdp")
    except (TorchDynamoException, InductorError) as error:
        first = next(line for line in str(error).splitlines() if line.strip())
        say(f"torch.compile does not work here ({first.strip()}); goes on without it")
        engine.be_compiled(False)
        return False
    finally:
        engine.optimizer.zero_grad(set_to_none=True)
    return True


def _seconds(engine: Engine, batch) -> float:
    """Median of forward and backward passes."""
    taken = []
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        engine.gradients(batch)
        taken.append(time.perf_counter() - began)
        engine.optimizer.zero_grad(set_to_none=True)
    return statistics.median(taken)


def _keep_compiled_code(device: torch.device) -> None:
    """Where, unless the user says so; and with no more processes than the job may use."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(machine_facts.cache() / "inductor"))
    if device.type == "cpu":
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(torch.get_num_threads()))
