"""What the tests share: the repository, the real models beside it, and tiny studies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# one thread each: the tests run beside other work, and numbers must not depend on the machine
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared():
    """A file or folder beside the project; the test skips, saying so, where it is absent."""

    def find(*parts: str) -> Path:
        path = SHARED.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"{path} is not there")
        return path

    return find
