"""A fitted law in words and numbers: what it says, how sure it is, and when it says nothing."""

from __future__ import annotations

from typing import Any


def told(fit: dict[str, Any]) -> dict[str, Any]:
    return {"law": fit["law"], "status": fit["status"]}
