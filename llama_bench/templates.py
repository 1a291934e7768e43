"""Templates of prompts and answers: columns in braces, all else as it stands.

    {premise}\nQuestion: {hypothesis} True or false?\nAnswer:

A brace of the template itself is doubled. What a column holds is put in as it is: braces in it are
text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from string import Formatter

from llama_bench.fields import UserError


class Template:
    """`key` is where it stands in the configuration. Raises UserError naming it."""

    def __init__(self, text: str, key: str):
        self.key = key
        try:
            self._pieces = [piece[:2] for piece in _parsed(text)]
        except ValueError as error:
            raise UserError(f"{key}: {error}; a brace of the text itself is doubled") from None
        if not self.columns:
            raise UserError(f'{key}: {text!r} names no column, such as "{{text}}"')

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self._pieces if column is not None))

    def fill(self, row: Mapping[str, object]) -> str:
        """Empty where one of the columns holds nothing."""
        values = {column: self._text(row, column) for column in self.columns}
        if not all(values.values()):
            return ""
        return "".join(
            literal + ("" if column is None else values[column]) for literal, column in self._pieces
        )

    def _text(self, row: Mapping[str, object], column: str) -> str:
        value = row[column]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, (dict, list, bytes)):
            kind = {dict: "a group of fields", list: "a list"}.get(type(value), "bytes")
            raise UserError(f"{self.key}: column {column!r} holds {kind}, not text or a number")
        text = str(value)
        return text if text.strip() else ""


def _parsed(text: str) -> list[tuple]:
    """Raises ValueError for what is no plain column."""
    pieces = list(Formatter().parse(text))
    for _, column, form, conversion in pieces:
        if column == "":
            raise ValueError("{} names no column")
        if form or conversion:
            raise ValueError(f"{{{column}...}} asks for a format; only names of columns are filled")
    return pieces
