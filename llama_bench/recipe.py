"""Recipes by size and budget: what config.yaml leaves open is settled here, once, and stands in
the spec as a number.

N is parameters without embeddings, D the horizon: the tokens that a training is meant for. Branches
of one trunk have one rate, so theirs cannot follow each budget; it follows `train.horizon`, by
default 20 tokens per parameter (Hoffmann et al. 2022, arXiv 2203.15556, table 3). A cosine
schedule's horizon is its own budget.

Weight decay 0.1 on matrices, betas 0.9 and 0.95 and clipping at 1 are constants of the field
(Brown et al. 2020, arXiv 2005.14165, appendix B; Touvron et al. 2023, arXiv 2302.13971, section
2.3): loss is flat in them over the sizes that a ladder spans, and what is constant cannot drift.
"""

from __future__ import annotations

import math

TOKENS_PER_PARAMETER = 20


def peak_rate(size: int, horizon: int, batch_tokens: int) -> float:
    """Peak learning rate of AdamW: falls as N^-0.23 and D^-0.32, rises as the root of the batch.

    Exponents: Bjorck et al. 2024 (arXiv 2409.19913, equation for LR*(N, D)), measured to 7 B
    parameters at one batch; the batch's: Malladi et al. 2022 (arXiv 2205.10287). The constant is
    this project's own measurement, 0.0025 at N = 113 k, D = 400 k, 512 tokens a batch
    (docs/benchmarks.md); carried to 1 B parameters, 20 B tokens and half a million tokens a batch
    it gives 5e-4, what published runs of that size use.
    """
    rate = 0.0025 * (size / 113e3) ** -0.23 * (horizon / 400e3) ** -0.32
    return float(f"{rate * (batch_tokens / 512) ** 0.5:.3g}")


def batch(horizon: int, context: int) -> int:
    """Sequences a step: 0.58 D^0.571 tokens, to the nearest power of two (Li et al. 2025, Step
    Law, arXiv 2503.04715, equation 1: the best batch follows the tokens, hardly the size)."""
    return 2 ** max(0, round(math.log2(0.58 * horizon**0.571 / context)))


def warmup_tokens(size: int, horizon: int) -> int:
    """As many tokens as parameters (Porian et al. 2024, arXiv 2406.19146, section 3.3: a warm-up
    fixed in tokens is what bent earlier laws), but at most a twentieth of the horizon, which is
    the same at 20 tokens per parameter."""
    return round(min(size, horizon / TOKENS_PER_PARAMETER))


def tuning_rate(size: int | None, method: str, from_zero: bool) -> float:
    """Peak learning rate of a fine-tuning (`method` is full or lora), 2e-5 where the size is not
    known: falls as the cube root of the size.

    The line goes through 1e-3 at 50 k parameters and 2e-5 at 7 B. The one was swept by factors of
    two at 22 k, 113 k and 706 k (docs/benchmarks.md): at twice the rate labels are learned a little
    better, and written answers clearly worse. The other is Llama 2's (Touvron et al. 2023, arXiv
    2307.09288, section 3.1). On the same grid weights that know nothing yet do best, on the whole,
    at eight times the rate. Low-rank products learn labels alike from 2.5 to twenty times, and
    written answers the better the less; five is what both bear (at 7 B the usual 1e-4).
    """
    full = 2e-5 if size is None else 1e-3 * (size / 50e3) ** (-1 / 3)
    return float(f"{full * (5 if method == 'lora' else 8 if from_zero else 1):.3g}")
