"""Docstrings of the fields of a section, read from its source on demand."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def field_docs(section: type) -> dict[str, str]:
    """Map each field to its docstring on one line; a class inherits those of its base."""
    docs: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        docs |= _of_module(cls.__module__).get(cls.__name__, {})
    return docs


@cache
def _of_module(module: str) -> Mapping[str, Mapping[str, str]]:
    if not module.startswith(__package__):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_of_class(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(node.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            yield field.target.id, " ".join(str(below.value.value).split())
