"""The one minimiser: damped Newton steps for a whole batch of problems at once.

A problem is a surface (laws/power.py, laws/surface.py: value, gradient and Hessian of h(theta))
with its targets and weights; a batch holds many starts, or many bootstrap draws, of the same one.
Each step takes the Hessian's eigenvalues by their absolute value, so that a saddle repels and a
direction of negative curvature is walked down, plus a damping that grows after a bad step and
shrinks after a good one. Huber's loss with a small threshold is nearly an absolute value, and its
quadratic part sees only the few points within the threshold; the Hessian of the surface itself
carries the rest, which is why a Gauss-Newton step would crawl here and this one takes ten steps.

Bounds are kept by projection: a parameter at its bound that is pushed outwards is held.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from llama_bench.derive.fitting import robust

# Elements (batch x rows) worked on at a time: a few arrays of this size fit in a core's cache.
CHUNK_ELEMENTS = 60_000


@dataclass(frozen=True)
class Minimum:
    """Where each of B problems ended: theta (B, P), objective (B,), settled (B,) booleans."""

    theta: np.ndarray
    objective: np.ndarray
    settled: np.ndarray

    @property
    def best(self) -> int:
        return int(np.argmin(self.objective))


def workers() -> int:
    """Threads to use: what OMP_NUM_THREADS grants, else the cores this process may run on."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    if granted.isdigit() and int(granted) > 0:
        return int(granted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def minimise(
    surface,
    target: np.ndarray,
    weight: np.ndarray,
    start: np.ndarray,
    delta: float,
    iterations: int = 200,
    tolerance: float = 1e-11,
) -> Minimum:
    """Minimise sum_i weight_i rho(target_i - h_i(theta)) from every start.

    target, weight: (n,), shared, or (B, n), one row a problem. start: (B, P). `settled` says that
    the last two steps gained less than `tolerance` of the objective. Deterministic: problems do
    not see one another, however they are spread over threads.
    """
    start = np.atleast_2d(np.asarray(start, dtype=float))
    batch = len(start)
    size = max(1, CHUNK_ELEMENTS // max(1, surface.rows))
    spans = [slice(i, min(i + size, batch)) for i in range(0, batch, size)]

    def work(span: slice) -> Minimum:
        rows = [v[span] if v.ndim == 2 else v[None] for v in (target, weight)]
        # A step too far overflows, costs infinity and is not taken. (Set here: threads do not
        # inherit it.)
        with np.errstate(all="ignore"):
            return _Descent(surface, *rows, delta).run(start[span], iterations, tolerance)

    if len(spans) > 1 and workers() > 1:
        with ThreadPoolExecutor(workers()) as pool:
            done = list(pool.map(work, spans))
    else:
        done = [work(span) for span in spans]
    return Minimum(
        np.concatenate([d.theta for d in done]),
        np.concatenate([d.objective for d in done]),
        np.concatenate([d.settled for d in done]),
    )


class _Descent:
    def __init__(self, surface, target, weight, delta):
        self.surface, self.target, self.weight, self.delta = surface, target, weight, delta

    def evaluate(self, theta, which):
        target = self.target if len(self.target) == 1 else self.target[which]
        weight = self.weight if len(self.weight) == 1 else self.weight[which]

        def pull(h):
            residual = target - h
            return (
                weight * robust.loss(residual, self.delta),
                -weight * robust.slope(residual, self.delta),
                weight * robust.curvature(residual, self.delta),
            )

        cost, gradient, hessian = self.surface.newton(theta, pull)
        cost = np.where(np.isfinite(cost), cost, np.inf)
        return cost, np.nan_to_num(gradient), np.nan_to_num(hessian)

    def run(self, start, iterations, tolerance) -> Minimum:
        low, high = self.surface.lower, self.surface.upper
        theta = np.clip(start, low, high)
        everyone = np.arange(len(theta))
        cost, gradient, hessian = self.evaluate(theta, everyone)
        damping = np.full(len(theta), 1e-2)
        calm = np.zeros(len(theta), dtype=int)
        # A cost this small is rounding alone: the law passes through every point.
        exact = 1e-28 * np.maximum(self.weight.sum(axis=1), 1e-300)
        exact = np.broadcast_to(exact, theta.shape[:1])
        active = everyone
        for _ in range(iterations):
            at, slope, bend = theta[active], gradient[active], hessian[active]
            step, foreseen = _step(at, slope, bend, damping[active], low, high)
            reached, slope, bend = self.evaluate(at + step, active)
            gain = cost[active] - reached
            better = gain > 0
            kept = active[better]
            theta[kept] = (at + step)[better]
            cost[kept], gradient[kept] = reached[better], slope[better]
            hessian[kept] = bend[better]
            quality = np.where(better, np.minimum(gain, 1e9) / np.maximum(foreseen, 1e-290), 0.0)
            damping[active] *= np.where(quality > 0.5, 1 / 6, np.where(quality > 0.1, 1.0, 5.0))
            small = np.abs(gain) <= tolerance * cost[active]
            calm[active] = np.where(small, calm[active] + 1, 0)
            over = (calm[active] >= 2) | (damping[active] > 1e12) | (cost[active] <= exact[active])
            active = active[~over]
            if not len(active):
                break
        settled = np.ones(len(theta), dtype=bool)
        settled[active] = False
        return Minimum(theta, cost, settled & np.isfinite(cost))


def _step(theta, gradient, hessian, damping, low, high):
    """The step (B, P) and the decrease that the quadratic model foresees (B,)."""
    held = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
    pushed = np.where(held, 0.0, gradient)
    model = hessian.copy()
    model[held] = 0.0
    model.transpose(0, 2, 1)[held] = 0.0
    values, vectors = np.linalg.eigh(model)
    values = np.abs(values)
    largest = values.max(axis=1, keepdims=True)
    values += (damping[:, None] + 1e-13) * largest + 1e-300
    turned = np.einsum("bji,bj->bi", vectors, pushed) / values
    step = np.where(held, 0.0, -np.einsum("bij,bj->bi", vectors, turned))
    step = np.clip(theta + step, low, high) - theta
    bent = 0.5 * np.einsum("bi,bij,bj->b", step, model, step)
    return step, -(np.einsum("bi,bi->b", pushed, step) + bent)
