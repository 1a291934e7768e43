"""The loss of merged models against how many were merged (Wang et al. 2025).

The form is theirs for one model size; their k members were drawn at random and the loss is the mean
over draws. Curves of one order of members bend about it.
"""

from __future__ import annotations

import numpy as np

from llama_bench.derive.fitting import profile
from llama_bench.derive.fitting.profile import Profile

FORMULA = "L(k) = E + A / (k + b)"
PAPER = "Wang et al. 2025, arXiv 2509.24244, section 3"
FEWEST = 4  # numbers of members: one more than parameters
MOST_SHIFT = 1e4  # of b; at the members that anyone merges, the curve is then a straight line


def loss(members, E: float, A: float, b: float):
    """L(k) = E + A / (k + b)

    k: members, L: nats per token; A >= 0, b > -1. E is what no number of members gets below.
    """
    return E + A / (np.asarray(members, float) + b)


def fit(members, losses) -> Profile:
    """Least squares on the loss; parameters E, A and b."""
    counts = len(np.unique(members))
    if counts < FEWEST:
        why = f"{counts} numbers of members; it takes {FEWEST}"
        return Profile("too-few-points", why)
    return profile.fit(_term, (-1.0, MOST_SHIFT), members, losses)


def _term(members: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """1 / (k + b), a row for each b."""
    return 1.0 / (members[None, :] + shifts[:, None])
