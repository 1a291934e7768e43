"""Laws by name: the settings each takes, and what of a table it is fitted to.

To add a law of power terms, write its function in laws/ and name it here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llama_bench.derive.allocation import optima
from llama_bench.derive.allocation.optima import Optima
from llama_bench.derive.fitting.fit_settings import FitSettings, settled
from llama_bench.derive.fitting.methods import Chain, Single
from llama_bench.derive.fitting.runs_table import Table
from llama_bench.derive.fitting.selection import excess, near_best
from llama_bench.derive.laws import accuracy
from llama_bench.derive.laws.accuracy import DirectSettings, TwoStepSettings
from llama_bench.derive.laws.chinchilla import chinchilla
from llama_bench.derive.laws.constant import ConstantSettings, constant
from llama_bench.derive.laws.data_constrained import DataConstrainedSettings, data_constrained
from llama_bench.derive.laws.frontier import FrontierSettings, frontier
from llama_bench.derive.laws.kaplan import KaplanSettings, kaplan
from llama_bench.derive.laws.law import Law, straight
from llama_bench.derive.laws.optimum import EnvelopeSettings, IsoflopSettings
from llama_bench.derive.laws.overtraining import OvertrainingSettings, overtraining
from llama_bench.fields import UserError, unknown


@dataclass(frozen=True)
class Family:
    """settings: what may be set. Either `method(settings)`, a way to forecast one column, fitted
    to `reduce(table, settings)`; or `optima(table, settings)`, the best run of each budget, whose
    size and tokens are fitted to compute. more: columns that `reduce` needs besides the law's."""

    settings: type[FitSettings]
    method: Callable[[FitSettings], Single | Chain] | None = None
    reduce: Callable[[Table, FitSettings], Table] = lambda table, settings: table
    optima: Callable[[Table, FitSettings], Optima] | None = None
    more: Callable[[FitSettings], tuple[str, ...]] = lambda settings: ()

    def columns(self, settings: FitSettings) -> list[str]:
        """What a table must hold to be fitted."""
        if self.method is None:
            found_already = getattr(settings, "rows", "runs") == "optima"
            return ["params", "tokens", "flops", *(() if found_already else ("loss",))]
        return list(dict.fromkeys([*self.method(settings).columns, *self.more(settings)]))


def _single(law: Callable[[FitSettings], Law]) -> Callable[[FitSettings], Single]:
    def make(settings: FitSettings) -> Single:
        made = law(settings)
        return Single(straight(made) if settings.residual == "linear" else made)

    return make


def _two_step(settings: TwoStepSettings) -> Chain:
    first = {"flops": accuracy.task_loss_of_compute, "params-tokens": accuracy.task_loss_of_size}
    return Chain(first[settings.first], accuracy.from_task_loss(settings))


def _frontier(table: Table, settings: FrontierSettings) -> Table:
    if settings.points == "minima":
        found = optima.minima(table, "akima", None, settings.seed).table
        return found
    if settings.within_percent is not None:
        return near_best(table, settings.within_percent)
    return table.keep(excess(table) <= 0, "a run of no more compute does better")


FAMILIES: dict[str, Family] = {
    "chinchilla": Family(FitSettings, _single(lambda settings: chinchilla)),
    "kaplan": Family(KaplanSettings, _single(kaplan)),
    "isoflop": Family(
        IsoflopSettings,
        optima=lambda table, settings: optima.minima(
            table, settings.method, settings.noise, settings.seed
        ),
    ),
    "envelope": Family(
        EnvelopeSettings,
        optima=lambda table, settings: optima.envelope(table, settings.rows == "optima"),
    ),
    "frontier": Family(
        FrontierSettings,
        _single(lambda settings: frontier),
        _frontier,
        more=lambda settings: ("params", "tokens") if settings.points == "minima" else (),
    ),
    "overtraining": Family(OvertrainingSettings, _single(lambda settings: overtraining)),
    "data_constrained": Family(DataConstrainedSettings, _single(data_constrained)),
    "two_step": Family(TwoStepSettings, _two_step),
    "direct": Family(DirectSettings, _single(accuracy.direct)),
    "constant": Family(ConstantSettings, _single(lambda settings: constant)),
}


def known(content: dict) -> tuple[Family, FitSettings]:
    """The family and the checked settings of a spec. Raises UserError naming law or key."""
    name = content.get("law")
    if name not in FAMILIES:
        raise UserError("fit: " + unknown(name, list(FAMILIES), "law"))
    return FAMILIES[name], settled(content, FAMILIES[name].settings)
