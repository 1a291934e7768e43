"""A running mean of the trunk's weights: a free estimate of what cooling down would give.

Averaging along a constant rate removes the noise that a decaying rate would have removed (Haegele
et al. 2024, arXiv 2405.18392, section 4). The weight of a step grows as a power of it (Karras et
al. 2024, EDM2, arXiv 2312.02696, section 3.1, equations 1 to 3), so that the beginning is forgotten
at every length of training alike, and the mean after s steps is a function of s alone: no window
has to be chosen, and a trunk that is resumed has the mean of one that was not.
"""

from __future__ import annotations

import torch

POWER = 6.94  # of a profile whose width is a tenth of the training (their sigma_rel = 0.10)
EVERY_STEPS = 8


def weight_of_newest(step: int) -> float | None:
    """How much of the mean the weights after `step` steps become; None where they are not read."""
    count, rest = divmod(step, EVERY_STEPS)
    return None if rest else 1 - (1 - 1 / count) ** (POWER + 1)


@torch.no_grad()
def update(mean: list[torch.Tensor], weights: list[torch.Tensor], step: int) -> None:
    share = weight_of_newest(step)
    if share is not None:
        torch._foreach_lerp_(mean, weights, share)
