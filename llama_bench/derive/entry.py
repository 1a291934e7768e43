"""One run as the study lists it: what the study calls it, and its record where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_bench.records import Record

NO_RECORD = "missing record"


@dataclass(frozen=True)
class Entry:
    """One run of the study: what the study calls it, and its record where there is one."""

    id: str
    verb: str
    path: str
    labels: dict[str, Any]
    record: Record | None

    @property
    def folder(self) -> Path:
        return Path(self.path).parent

    @property
    def status(self) -> str:
        return self.record.status if self.record else NO_RECORD

    @property
    def origin(self) -> str | None:
        """Trained in this study or loaded, a fine-tuned model as its base was; None where only a
        record could tell."""
        if self.verb == "train" or "budget" in self.labels:
            return "trained"
        if self.record is None or "model" not in self.labels:
            return None
        fused = "fuse" in self.labels and self.verb != "probe"
        if fused or "finetune" in self.labels:  # a trained base has a budget
            return "trained" if self.labels.get("from_zero") else "pretrained"
        return "pretrained" if self.record.spec.get("pretrained") else "trained"

    @property
    def altered(self) -> bool:
        """Whether it is of a fine-tuned or fused model, or of a base before its fine-tuning: what
        the study's own ladder leaves out."""
        return any(self.labels.get(name) for name in ("finetune", "fuse", "before"))

    @property
    def tuning(self) -> dict[str, Any]:
        """The columns that say which fine-tuning it is of; it read all examples where no fraction
        is named. Nulls of what is none."""
        names = ("finetune", "fraction", "method", "from_zero", "tuning_seed")
        columns = {name: self.labels.get(name) for name in names}
        if columns["finetune"] and self.verb != "examples" and columns["fraction"] is None:
            columns["fraction"] = 1.0
        return columns

    @property
    def log(self) -> str | None:
        path = self.folder / "log.txt"
        return str(path) if path.exists() else None

    def about(self, *extra: str) -> dict[str, Any]:
        """The columns that say which run and model a row is of, and the labels in `extra`."""
        result = self.record.result if self.record else {}
        counts = result.get("parameters") or {}
        columns = {f"parameters_{way}": count for way, count in counts.items()}
        columns |= {"run": self.id, "model": self.labels.get("model"), "origin": self.origin}
        return columns | {name: self.labels.get(name) for name in extra}
