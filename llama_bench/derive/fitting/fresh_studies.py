"""Whether a fit's intervals would hold, were its law true: studies drawn from it and fitted alike.

Each fresh study has the rows and weights of the real one; its losses are the fitted law plus noise
as it was measured (bootstrap.py). It is fitted, its own noise is measured, and it is bootstrapped
in the same way: a bootstrap of the bootstrap (Hall 1986, Annals of Statistics 14, p. 1431). The
share of fresh studies whose interval holds the value that they were drawn from is `covered`.

It shows what a percentile of the draws can miss: a skewed or biased estimate, a bound, too few runs
to know the noise, whole rows resampled where a few of them determine a parameter. It takes the law
and the noise for true, so it cannot show that either is wrong: that is the back-test's part.
"""

from __future__ import annotations

import numpy as np

from llama_bench.derive.fitting import bootstrap, engine, redraws
from llama_bench.derive.fitting.regression import BRIEF, Regression

# One study for so many draws of the fit, within limits.
DRAWS_PER_STUDY, FEWEST, MOST = 10, 20, 200
# With 39 draws of its own, a 90 % interval goes from a study's second lowest to its second highest
# draw, and 36 of the 40 ranks that the true value can have lie inside.
OWN_DRAWS = 39
ELEMENTS = 2_000_000  # studies x draws x rows that are worked on at a time
# Of a value: the intervals of an exact law have no width, and its draws differ in rounding.
ROUNDING = 1e-7


def draws(fit: Regression, settings) -> np.ndarray | None:
    """The bootstrap draws of S fresh studies, (S, OWN_DRAWS, P); None of a fit not converged."""
    if fit.status != "converged":
        return None
    random = np.random.default_rng([settings.seed, 1])
    count = int(np.clip(settings.draws // DRAWS_PER_STUDY, FEWEST, MOST))
    losses = fit.target - fit.residuals + bootstrap.resample(fit.noise, count, random)
    weights = np.broadcast_to(fit.weight, losses.shape)
    theta = redraws.refit(fit.surface, losses, weights, fit.basins, settings, BRIEF)
    size = max(1, ELEMENTS // (OWN_DRAWS * losses.shape[1]))
    parts = [slice(first, first + size) for first in range(0, count, size)]
    found = [_own_draws(fit, losses[part], theta[part], settings, random) for part in parts]
    return np.concatenate(found)


def _own_draws(fit: Regression, losses, theta, settings, random) -> np.ndarray:
    """losses (S, n), theta (S, P) -> (S, OWN_DRAWS, P)."""
    residuals = losses - fit.surface.value(theta)
    cases = redraws.by_cases(fit.table, theta.shape[1], settings)
    asked = []
    for target, left in zip(losses, residuals, strict=True):
        noise = bootstrap.measure(
            fit.table, fit.law.needs, target, left, theta.shape[1], settings.threshold
        )
        asked.append(
            redraws.problems(fit.table, target, fit.weight, left, noise, OWN_DRAWS, cases, random)
        )
    targets, weights = (np.concatenate(part) for part in zip(*asked, strict=True))
    found = engine.minimise(
        fit.surface,
        targets,
        weights,
        np.repeat(theta, OWN_DRAWS, axis=0),
        settings.threshold,
        BRIEF.draw_iterations,
        BRIEF.draw_tolerance,
    )
    return found.theta.reshape(len(losses), OWN_DRAWS, -1)


def covered(value: float | None, found: np.ndarray, level: float) -> float | None:
    """The share of studies with draws `found` (S, OWN_DRAWS) whose interval holds `value`.

    An interval leaves out the ranks nearest to either end; a rank that the level cuts counts by
    its part. A NaN counts as below the low end and as above the high one (fitted_parameters.entry).
    """
    if value is None:
        return None
    slack = ROUNDING * abs(value)
    below = np.sum(found < value - slack, axis=1)
    above = np.sum(found > value + slack, axis=1)
    rank, lost = (below + OWN_DRAWS - above) / 2, np.sum(np.isnan(found), axis=1) / 2
    outside = (1 - level) / 2 * (OWN_DRAWS + 1)
    above_low = np.clip(rank + lost + 1 - outside, 0, 1)
    below_high = np.clip(OWN_DRAWS + 1 - outside - (rank - lost), 0, 1)
    return float(np.mean(above_low * below_high))
