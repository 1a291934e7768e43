"""config.yaml: read, made into types, and described to editors.

Every complaint is one line that begins with the wrong key. workflow/config.schema.json is
generated from the types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llama_bench.config import Config
from llama_bench.fields import UserError, readable


def check(given: dict[str, Any], name: str = "config") -> Config:
    """A parsed configuration as types; `name` is the file's. Raises UserError, a line for each
    wrong key."""
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        raise readable(error, name) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's keys. Raises UserError: not there, no YAML, or a key that stands twice."""
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_unique_keys())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: should hold keys such as study:, data: and models:")
    return content


def _unique_keys():
    """YAML's own loader keeps the last of two equal keys in silence; a size would be lost."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def write_schema(path: Path) -> None:
    """The JSON schema of config.yaml, by which editors complete and check it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= Config.model_json_schema(mode="validation")
    path.write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n", encoding="utf-8")
