"""The largest batch that fits: doubled until memory runs out, then bisected.

Every try is the real work, guarded as a cell is: what a formula leaves out (activations, fragments,
workspaces) is what decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOST = 4096  # sequences; where even so many fit, memory is not what limits


def largest(reason_against: Callable[[int], str | None]) -> dict[str, Any]:
    """`reason_against(batch)` is None where the batch fits, else what was said as memory ran out.

    `batch` is the largest that fits, None if not even one does; `limited_by` says whether memory
    or MOST ended the search; `tries` counts.
    """
    fits, tries, reason = 0, 0, None
    too_large = None
    while too_large is None or too_large - fits > 1:
        batch = max(1, 2 * fits) if too_large is None else (fits + too_large) // 2
        tries += 1
        against = reason_against(batch)
        if against is None:
            fits = batch
            if fits >= MOST:
                break
        else:
            too_large, reason = batch, against
    if fits == 0:
        row = {"batch": None, "status": "out-of-memory", "limited_by": None}
    else:
        row = {"batch": fits, "status": "ok", "limited_by": "memory" if too_large else "most"}
    return row | {"reason": reason, "tries": tries}
