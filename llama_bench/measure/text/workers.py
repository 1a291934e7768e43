"""Work spread over the job's processes, with the results in order.

As many processes as the job has threads, each of them single-threaded; with one thread, or next
to no work, it is done in this process. Results do not depend on how many there are. Workers end
with the process that started them, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice
from typing import Any

FEW = 4  # fewer tasks are done sooner than processes start
AHEAD = 2  # tasks per process that may wait; bounds what is held in memory


def in_order(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    workers: int,
    begin: Callable[..., None] | None = None,
    given: tuple = (),
) -> Iterator[Any]:
    """`function` of each task, in the order of the tasks; `begin(*given)` comes first everywhere.

    Functions are given by their place in a module, for that is how a process can be told.
    """
    tasks = iter(tasks)
    first = list(islice(tasks, FEW)) if workers > 1 else []
    tasks = chain(first, tasks)
    if len(first) < FEW:
        if begin:
            begin(*given)
        yield from map(function, tasks)
        return
    # forked from a process of their own: threads of libraries in this one would not survive a fork
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])  # imported once, not in every worker
    pool = ProcessPoolExecutor(workers, context, _begin, (begin, given))
    try:
        waiting: deque = deque()
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., None] | None, given: tuple) -> None:
    threading.Thread(target=_end_with_starter, daemon=True).start()
    os.environ["RAYON_NUM_THREADS"] = "1"
    if begin:
        begin(*given)


def _end_with_starter() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
