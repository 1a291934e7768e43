"""One law, one table: the best parameters, how the search ended, and how far they could move."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from llama_bench.derive.fitting import bootstrap, engine, redraws
from llama_bench.derive.fitting.bootstrap import Noise
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.laws.law import Law
from llama_bench.derive.laws.surface import Surface

STATUSES = ("converged", "at-bounds", "ill-posed", "too-few-points")

# A direction of parameter space along which the predictions move this little, relative to the
# direction that moves them most, is one that the data say nothing about.
RANK_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Effort:
    """How far minima are followed: the best `polished` starts, then `basins` of them for draws."""

    polished: int
    basins: int
    iterations: int
    tolerance: float
    draw_iterations: int
    draw_tolerance: float


FULL = Effort(12, 4, 400, 1e-13, 80, 1e-7)
BRIEF = Effort(4, 2, 80, 1e-9, 40, 1e-5)


@dataclass(frozen=True)
class Regression:
    """A fit. theta (P,) and draws (B, P) are in the coordinates of `surface`; None when too few.

    null: (P, k) directions that the data do not determine, at the surface's `generic` parameters.
    at_bound: names held at a bound. stretch: how much wider than the noise the draws were made.
    target, weight: (n,) on the scale of the fit. basins: (k, P) distinct minima, the best first.
    """

    law: Law
    table: Table
    status: str
    why: str
    reference: dict[str, float]
    surface: Surface | None = None
    theta: np.ndarray | None = None
    objective: float | None = None
    residuals: np.ndarray | None = None
    noise: Noise | None = None
    draws: np.ndarray | None = None
    null: np.ndarray | None = None
    at_bound: tuple[str, ...] = ()
    stretch: float = 1.0
    target: np.ndarray | None = None
    weight: np.ndarray | None = None
    basins: np.ndarray | None = None


def regress(law: Law, table: Table, settings, brief: bool = False) -> Regression:
    """Fit `law` to `table`. settings: delta, loss_function, starts, draws, bootstrap, seed.

    brief: settle for the sixth digit, as the many fits of a back-test may.
    """
    names = law.parameter_names
    distinct = len(np.unique(np.stack([table[c] for c in law.needs], axis=1), axis=0))
    if distinct <= len(names):
        why = (
            f"{distinct} distinct points for the {len(names)} parameters of {law.name}; "
            f"it takes {len(names) + 1} at least"
        )
        return Regression(law, table, "too-few-points", why, {})
    reference = law.reference(table.columns)
    surface = law.bind(table.columns, reference)
    target = law.onto_link(table[law.target])
    weight = table["weight"] if "weight" in table else np.ones(len(table))
    effort = BRIEF if brief else FULL
    basins = search(surface, target, weight, settings, effort)
    theta = basins.theta[0]
    residuals = target - surface.value(theta[None])[0]
    fit = Regression(
        law,
        table,
        "converged",
        "",
        reference,
        surface,
        theta,
        float(basins.objective[0]),
        residuals,
        bootstrap.measure(table, law.needs, target, residuals, len(names), settings.threshold),
        null=undetermined(surface),
        target=target,
        weight=weight,
        basins=basins.theta,
    )
    return _judge(_drawn(fit, settings, effort), settings, bool(basins.settled[0]))


def _drawn(fit: Regression, settings, effort: Effort) -> Regression:
    """The fit with its bootstrap draws."""
    cases = redraws.by_cases(fit.table, fit.theta.size, settings)
    random = np.random.default_rng(settings.seed)
    targets, weights = redraws.problems(
        fit.table,
        fit.target,
        fit.weight,
        fit.residuals,
        fit.noise,
        settings.draws,
        cases,
        random,
    )
    return replace(
        fit,
        draws=redraws.refit(fit.surface, targets, weights, fit.basins, settings, effort),
        stretch=1.0 if cases else fit.noise.stretch,
    )


def search(surface, target, weight, settings, effort=FULL) -> engine.Minimum:
    """All distinct minima found, best first: spread starts, then the best polished."""
    start = surface.starts(settings.starts, target, weight)
    found = engine.minimise(surface, target, weight, start, settings.threshold, 40, 1e-9)
    rough = found.theta[_distinct(found, 0.02, effort.polished)]
    best = engine.minimise(
        surface, target, weight, rough, settings.threshold, effort.iterations, effort.tolerance
    )
    kept = _distinct(best, 0.02, effort.basins)
    return engine.Minimum(best.theta[kept], best.objective[kept], best.settled[kept])


def _distinct(found: engine.Minimum, apart: float, most: int) -> list[int]:
    """Places of the minima, best first, that differ by more than `apart` from any better one."""
    chosen: list[int] = []
    for place in np.argsort(found.objective, kind="stable"):
        theta = found.theta[place]
        if all(np.abs(theta - found.theta[c]).max() > apart for c in chosen):
            chosen.append(int(place))
        if len(chosen) == most:
            break
    return chosen


def undetermined(surface: Surface, theta=None, free=None) -> np.ndarray:
    """Orthonormal directions (P, k) along which no prediction of the fitted rows moves.

    Taken at generic parameters unless `theta` (P,) is given: a term that vanished at the optimum
    would hide what the data could have told, and what they could not. `free` (P,) booleans: the
    parameters that may move.
    """
    jacobian = surface.jacobian((surface.generic if theta is None else theta)[None])[0]
    free = np.ones(jacobian.shape[1], dtype=bool) if free is None else free
    size = np.linalg.norm(jacobian, axis=0)
    scale = np.where(size > 1e-12 * size.max(), size, 1.0)
    _, values, turned = np.linalg.svd((jacobian / scale)[:, free], full_matrices=True)
    values = np.concatenate([values, np.zeros(turned.shape[0] - len(values))])
    blind = values < RANK_TOLERANCE * max(values[0], 1e-300)
    null = np.zeros((len(free), int(blind.sum())))
    null[free] = (turned[blind] / scale[free]).T
    return null / np.maximum(np.linalg.norm(null, axis=0), 1e-300)


def bounds_hit(surface, theta) -> tuple[np.ndarray, np.ndarray]:
    """Whether each parameter sits at its lower, upper bound: two boolean arrays like theta."""
    span = np.where(np.isfinite(surface.upper - surface.lower), surface.upper - surface.lower, 1.0)
    return theta <= surface.lower + 1e-6 * span, theta >= surface.upper - 1e-6 * span


def _judge(fit: Regression, settings, settled: bool) -> Regression:
    names = np.array(fit.law.parameter_names)
    low, high = bounds_hit(fit.surface, fit.theta)
    held = names[low | high]
    tail = (1 - settings.level) / 2
    _, drawn_high = bounds_hit(fit.surface, fit.draws)
    natural = fit.law.natural(fit.draws, fit.reference)
    endless = np.array([np.isinf(natural[name]).mean() for name in names])
    open_above = names[np.maximum(drawn_high.mean(axis=0), endless) > tail]
    if fit.null.shape[1]:
        moved = names[np.abs(fit.null).max(axis=1) > 1e-3]
        return replace(
            fit,
            status="ill-posed",
            at_bound=tuple(held),
            why=f"the data do not determine {', '.join(moved)}",
        )
    if len(held):
        where = ", ".join(
            f"{n} at its {'lower' if n in names[low] else 'upper'} bound" for n in held
        )
        return replace(fit, status="at-bounds", why=where, at_bound=tuple(held))
    if len(open_above):
        return replace(
            fit, status="ill-posed", why=f"the interval of {', '.join(open_above)} is open above"
        )
    if not settled:
        return replace(fit, status="ill-posed", why="the search did not settle on a minimum")
    return fit
