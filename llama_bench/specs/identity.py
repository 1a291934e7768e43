"""Identity: the digest of what a run is asked names its result.

Only what can move a number belongs in a spec; how a run is carried out (workers, log interval,
folders, host) does not. A new field is optional and None, and None is left out of the digest, so
that it renames no finished run; code that changes an answer raises the spec's `recipe` instead.
"""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar

from pydantic import ValidationError

from llama_bench.fields import Base, readable


class Spec(Base):
    """The question a run answers. Two equal questions are one run, wherever they were asked."""

    verb: ClassVar[str]
    recipe: int = 1

    def canonical(self) -> str:
        """JSON with sorted keys and without None: equal specs give equal text."""
        content = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.verb}:{self.canonical()}".encode()).hexdigest()[:8]

    @property
    def slug(self) -> str:
        """A few words for people who list the folder; the digest alone is the identity."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        return f"{self.slug}-{self.digest}"

    @property
    def record_path(self) -> str:
        return f"results/runs/{self.verb}/{self.id}/record.json"

    @classmethod
    def parse(cls, text: str):
        """A spec from its JSON. Raises UserError, naming the key."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise readable(error, f"{cls.verb} spec") from None
