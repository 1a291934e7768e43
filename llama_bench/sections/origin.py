"""Where something trained elsewhere comes from: a folder of this machine, or the Hub."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from llama_bench.fields import Base


class Origin(Base):
    """A local folder `path`, or a Hub `repo` at a `revision`."""

    path: str | None = None
    """A local folder."""
    repo: str | None = None
    """A repository on the Hub, as owner/name."""
    revision: str | None = None
    """Of the repository: the commit to load."""

    @model_validator(mode="after")
    def _one_origin(self):
        if (self.path is None) == (self.repo is None):
            raise ValueError("give either path (a local folder) or repo (a Hub repository)")
        if self.repo and not self.revision:
            raise ValueError("revision: is missing; a Hub repository needs the one to load")
        return self

    @property
    def folder(self) -> Path | None:
        """The local folder; None for what is on the Hub."""
        return Path(self.path).expanduser() if self.path else None

    @property
    def inputs(self) -> tuple[str, ...]:
        return (str(self.folder),) if self.folder else ()
