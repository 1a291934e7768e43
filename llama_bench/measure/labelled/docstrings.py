"""What code is for, said in one line: signatures of held-out Python, answered by docstrings.

The prompt is the code as it stands up to the quotes that open the docstring, a method's with its
class named above it; the answer is the docstring's first line. It begins with a letter or digit, so
that no tokenizer joins it to the quotes.
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator

from llama_bench.measure.labelled.example import END, Example

SIGNATURE_BYTES = 160
ANSWER_BYTES = (8, 72)

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def examples(documents: list[tuple[str, str]]) -> list[Example]:
    """Of all functions, methods and classes whose docstring has a first line to be asked for."""
    return [
        Example(name, prompt, answer + END)
        for name, text in documents
        for prompt, answer in _of_code(text)
    ]


def _of_code(text: str) -> Iterator[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in string literals
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
    lines = text.split("\n")
    for node in tree.body:
        if isinstance(node, (*_Function, ast.ClassDef)):
            yield from _asked(node, lines, "")
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, _Function):
                    yield from _asked(method, lines, f"class {node.name}:\n")


def _asked(node, lines: list[str], above: str) -> Iterator[tuple[str, str]]:
    """The prompt and its answer; none where the signature is not written as usual."""
    answer = (ast.get_docstring(node) or "").partition("\n")[0].strip()
    least, most = ANSWER_BYTES
    if not least <= len(answer.encode()) <= most or not answer[0].isalnum():
        return
    head = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1]))
    usual = head.startswith(("def ", "async def ", "class ")) and head.endswith(":")
    if not usual or len(head.encode()) > SIGNATURE_BYTES:
        return
    indent = "    " if above else ""
    yield f'{above}{textwrap.indent(head, indent)}\n{indent}    """', answer
