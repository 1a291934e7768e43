"""What people write in a configuration, and what they get told when it cannot be read.

Numbers in any usual spelling, names that are safe as file names, and types that refuse a key they
do not know. Everything else in the project stands on this module; it knows none of it.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Annotated, Any, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)


class UserError(ValueError):
    """A mistake of the user's: its message is all that is printed, never a traceback."""


_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
# Commas stand before groups of three digits, the first beginning with no 0; others are decimal.
_GROUPS = r"[1-9]\d{0,2}(?:,\d{3})+"
_NUMBER = re.compile(
    rf"([+-]?(?:(?:{_GROUPS}|\d[\d_]*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*([kKMmBbGgTt]?)"
)

_COUNTS = "8, 250k, 0.5M or 2e6"
_REALS = "5, 0.5 or 3e-4"


def number(value: Any, such_as: str = _REALS) -> float:
    """`3e-4`, "3e-4", 2_000_000, "2,000,000", "2e6", "0.5M", "250k": one number. Raises
    ValueError, with examples of right ones."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is not a number; write for example {such_as}")
    if isinstance(value, (int, float)):
        return value
    match = _NUMBER.fullmatch(str(value).strip())
    if match is None:
        comma = isinstance(value, str) and "," in value
        marks = ": a comma marks thousands (1,000), a point decimals" if comma else ""
        raise ValueError(f"{value!r} is not a number{marks}; write for example {such_as}")
    digits, suffix = match.groups()
    scale = _SUFFIXES[suffix.lower() if suffix in "kK" else suffix.upper()]
    return float(digits.replace("_", "").replace(",", "")) * scale


def _count(value: Any) -> int:
    amount = number(value, _COUNTS)
    if not math.isfinite(amount) or abs(amount - round(amount)) > 1e-6 * max(1.0, abs(amount)):
        raise ValueError(f"{value!r} is not a whole number; write for example {_COUNTS}")
    if amount < 0:
        raise ValueError(f"{value!r} is negative; write for example {_COUNTS}")
    return round(amount)


def _real(value: Any) -> float:
    amount = float(number(value))
    if not math.isfinite(amount):
        raise ValueError(f"{value!r} is not finite; write for example {_REALS}")
    return amount


def _safe_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", value) or ".." in value:
        raise ValueError(
            f"{value!r} cannot be a name: use letters, digits, '.', '_', '+' and '-' only, "
            "and begin with a letter or digit"
        )
    return value


Count = Annotated[int, BeforeValidator(_count, json_schema_input_type=int | str)]
Real = Annotated[float, BeforeValidator(_real, json_schema_input_type=float | str)]
Positive = Annotated[
    # the bound stands first, so that it is of the number and not of how that is written
    float, Field(gt=0), BeforeValidator(_real, json_schema_input_type=float | str)
]
Share = Annotated[
    float, BeforeValidator(_real, json_schema_input_type=float | str), Field(ge=0, lt=1)
]
Name = Annotated[
    str, BeforeValidator(lambda v: str(v) if isinstance(v, int) else v), AfterValidator(_safe_name)
]


KIND = "~"
_KINDS = {
    "text": "text",
    "list": "a list, such as [a, b]",
    "keys": "a group of keys (key: value, indented below it)",
}


def kinds(**types: Any) -> Any:
    """One of several types, told apart by how a value is written (`text`, `list`, `keys`), so that
    a mistake in one is not explained by the others."""

    def kind(value: Any) -> str:
        written = "list" if isinstance(value, (list, tuple)) else "text"
        return KIND + ("keys" if isinstance(value, (dict, BaseModel)) else written)

    tagged = [Annotated[type_, Tag(KIND + name)] for name, type_ in types.items()]
    return Annotated[Union[tuple(tagged)], Discriminator(kind)]  # noqa: UP007 - made at run time


class Base(BaseModel):
    """Frozen, and closed: an unknown key is an error that names the nearest right one."""

    # what stands below a key describes it, in the schema too
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given):
        if isinstance(given, dict):
            for key in given:
                if key not in cls.model_fields:
                    raise ValueError(unknown(key, list(cls.model_fields), "key"))
        return given


def unknown(given: Any, known: list[str], what: str) -> str:
    """The message for a name that is none of `known`, with the nearest right one."""
    if not known:
        return f"unknown {what} {given!r}: there is none"
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(sorted(known)) if len(known) <= 40 else f"{len(known)} of them"
    return f"unknown {what} {given!r}; {hint}known: {listed}"


_PLAIN = {
    "missing": "is missing; add it",
    "model_type": "should be a group of keys (key: value, indented below it)",
    "model_attributes_type": "should be a group of keys (key: value, indented below it)",
    "dict_type": "should be a group of keys (key: value, indented below it)",
    "list_type": "should be a list, such as [a, b]",
    "tuple_type": "should be a list, such as [a, b]",
    "string_type": "should be text",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
}
# of what lies outside of its bounds: in `error["ctx"]` stands the bound
_OUTSIDE = {
    "greater_than": "{0} is too small; write a number above {1}, such as 1e-3 or 0.5",
    "greater_than_equal": "{0} is too small; write {1} or more",
    "less_than": "{0} is too large; write a number below {1}, such as 0.5",
    "less_than_equal": "{0} is too large; write {1} or less",
}

_OF_A_KEY = re.compile(r"[a-z_]+(\.[\w.-]+|\[\d+\])*: ")
_CHOICE = re.compile(r"'([^']*)'")


def _keys_of(section: str) -> str:
    """The keys of the type of that name, for someone who wrote something else in its place."""
    kinds = [Base]
    while kinds:
        kind = kinds.pop()
        if kind.__name__ == section:
            return ", ".join(kind.model_fields)
        kinds += kind.__subclasses__()
    raise AssertionError(section)


def _said(item: Any) -> str:
    """One of a validation's complaints, without its key."""
    kind, about = item["type"], item.get("ctx", {})
    message = _PLAIN.get(kind) or item["msg"].removeprefix("Value error, ")
    if kind in ("model_type", "model_attributes_type"):
        return f"{message}, of {_keys_of(about['class_name'])}"
    if kind == "literal_error":
        return unknown(item["input"], _CHOICE.findall(about["expected"]), "value")
    if kind == "union_tag_invalid":
        wanted = [kind for kind in _KINDS if KIND + kind in about["expected_tags"]]
        return "should be " + " or ".join(_KINDS[kind] for kind in wanted)
    if kind in ("too_short", "too_long"):
        most = "or more" if kind == "too_short" else "at most"
        bound = about["min_length" if kind == "too_short" else "max_length"]
        return f"holds {about['actual_length']} values; give {bound} {most}"
    if kind not in _OUTSIDE:
        return message
    (bound,), given = about.values(), item["input"]
    if kind == "greater_than" and not isinstance(given, float):
        kind, bound = "greater_than_equal", bound + 1  # the least of whole numbers
    given, bound = (f"{n:.12g}" if isinstance(n, float) else n for n in (given, bound))
    return _OUTSIDE[kind].format(given, bound)


def readable(error: ValidationError, title: str) -> UserError:
    """All of a validation's complaints, one line each, every line beginning with the key."""
    lines = []
    for item in error.errors():
        path = ""
        for part in item["loc"]:
            # which of several spellings was meant; and that a name of the user's own is wrong
            if str(part).startswith(KIND) or part == "[key]":
                continue
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        message = _said(item)
        key = _OF_A_KEY.match(message)  # a section complains about one of its own keys
        joint = "." if key else ": "
        lines.append(f"{path}{joint}{message}" if path else message)
    return UserError(f"{title}: " + f"\n{title}: ".join(dict.fromkeys(lines)))


def short(count: int) -> str:
    """1500000 -> 1.5M: three digits at most, for slugs and axes."""
    for scale, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= 0.9995 * scale:  # 999,900 is 1M and not 1e+03k
            return f"{count / scale:.3g}{suffix}"
    return str(count)
