"""What a model of a study was made from, as specs name it."""

from __future__ import annotations

from typing import Literal

from llama_bench.fields import Base
from llama_bench.specs.pretrained import Pretrained

Made = Literal["train", "finetune", "fuse"]


class Member(Base):
    """One model: the run that made it (`verb` and its id), or one trained elsewhere; of the latter
    `base` is what it is said to be fine-tuned from."""

    verb: Made | None = None
    run: str | None = None
    pretrained: Pretrained | None = None
    base: str | None = None

    @property
    def slug(self) -> str:
        return self.run.rpartition("-")[0] if self.run else self.pretrained.slug
