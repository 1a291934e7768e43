"""A model trained elsewhere, as specs name it."""

from __future__ import annotations

from llama_bench.fields import Base


class Pretrained(Base):
    """A model trained elsewhere: a Hub repository at a revision, or a folder known by content.
    `trust_remote_code` lets a repository run code of its own."""

    repo: str | None = None
    revision: str | None = None
    digest: str | None = None
    trust_remote_code: bool | None = None

    @property
    def id(self) -> str:
        """What is the same for two specs that name the same weights."""
        return self.digest or f"{self.repo}@{self.revision}"

    @property
    def slug(self) -> str:
        return self.repo.split("/")[-1] if self.repo else "local"
