"""Laws by name. One family per module; a new law is one function plus its bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llama_bench.derive.fit_settings import FitSettings, settled
from llama_bench.derive.laws.accuracy import DirectSettings, direct
from llama_bench.derive.laws.chinchilla import chinchilla
from llama_bench.derive.laws.data_constrained import DataConstrainedSettings, data_constrained
from llama_bench.derive.laws.frontier import FrontierSettings, frontier
from llama_bench.derive.laws.kaplan import KaplanSettings, kaplan
from llama_bench.derive.laws.law import Law, straight
from llama_bench.derive.laws.overtraining import OvertrainingSettings, overtraining
from llama_bench.fields import UserError, unknown


@dataclass(frozen=True)
class Family:
    """A law's name, the settings it takes, and the law that they select."""

    settings: type[FitSettings]
    law: Callable[[FitSettings], Law]


REGRESSIONS: dict[str, Family] = {
    "chinchilla": Family(FitSettings, lambda settings: chinchilla),
    "kaplan": Family(KaplanSettings, kaplan),
    "frontier": Family(FrontierSettings, lambda settings: frontier),
    "overtraining": Family(OvertrainingSettings, lambda settings: overtraining),
    "data_constrained": Family(DataConstrainedSettings, data_constrained),
    "direct": Family(DirectSettings, direct),
}


def settings_for(content: dict) -> FitSettings:
    """Settings as given, checked. Raises UserError for an unknown law or key."""
    name = content.get("law")
    if name not in REGRESSIONS:
        raise UserError("fit: " + unknown(name, list(REGRESSIONS), "law"))
    return settled(content, REGRESSIONS[name].settings)


def law_for(settings: FitSettings) -> Law:
    """The law of the settings, with the residual they ask for."""
    law = REGRESSIONS[settings.law].law(settings)
    return straight(law) if settings.residual == "linear" else law
