"""Laws by name. One family per module; a new law is one function plus its bounds."""

from __future__ import annotations

from llama_bench.derive.laws.chinchilla import chinchilla
from llama_bench.derive.laws.law import Law

REGRESSIONS: dict[str, Law] = {law.name: law for law in (chinchilla,)}
