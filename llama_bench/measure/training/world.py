"""Whether this process is one of several that train together, told without torch.

`python -m torch.distributed.run` starts them and says in the environment which is which; the
process of rank 0 alone logs, locks and writes.
"""

from __future__ import annotations

import os


def rank() -> int:
    return int(os.environ["RANK"]) if _started_together() else 0


def processes() -> int:
    return int(os.environ["WORLD_SIZE"]) if _started_together() else 1


def _started_together() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
