"""Words of JSON Schema in which a section states beside its validator what that validator holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

Clause: TypeAlias = dict[str, Any]  # pydantic's own type of a schema

NULL: Final[Clause] = {"type": "null"}


@dataclass(frozen=True, slots=True)
class Written:
    """Metadata of a type: what stands in a file is not what the type says, but `form` of its schema."""

    form: Callable[[Clause], Clause]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Clause:
        return self.form(handler(core))


def also(other: Clause) -> Written:
    """The type, or what `other` says."""
    return Written(lambda clause: any_of([clause, other]))


def given(*names: str) -> Clause:
    """All of these fields are there; null is absence."""
    return {"required": list(names), "properties": {name: {"not": NULL} for name in names}}


def not_both(one: str, other: str) -> Clause:
    return {"not": given(one, other)}


def any_of(clauses: Iterable[Clause]) -> Clause:
    return {"anyOf": list(clauses)}


def when(condition: Clause, then: Clause) -> Clause:
    return {"if": condition, "then": then}


def inside(key: str, clause: Clause) -> Clause:
    """The field, when it is there, is so."""
    return {"properties": {key: clause}}


def whole(pattern: str) -> str:
    """A pattern for all of a text, in the words that regular expressions of Python and ECMAScript share.

    Python's `$` also matches before a last line break, which the look-ahead forbids.
    """
    return rf"^(?:{_unnamed(pattern)})$(?!\n)"


def text(pattern: str, meaning: str, **more: object) -> Clause:
    """Text that matches as a whole. Editors show `patternErrorMessage` for what does not."""
    return {
        "type": "string",
        "pattern": whole(pattern),
        "patternErrorMessage": f"must be {meaning}",
        **more,
    }


def but(pattern: str) -> str:
    """Before another pattern: what it matches is not all of this one."""
    return rf"(?!(?:{pattern})$(?!\n))"


def lines(clauses: Mapping[str, Clause]) -> Clause:
    """A closed map, each of whose fields may be absent."""
    return {"type": "object", "properties": dict(clauses), "additionalProperties": False}


def counted(least: int, most: int) -> Clause:
    """A whole number; JSON Schema takes 2.0 for one too, and so does the parser."""
    return {"type": "integer", "minimum": least, "maximum": most}


def nullable(clause: Clause) -> Clause:
    """The clause, or null."""
    if clause == NULL:
        return clause
    if set(clause) == {"anyOf"}:
        return clause if NULL in clause["anyOf"] else any_of([*clause["anyOf"], NULL])
    if not isinstance(clause.get("type"), str) or "allOf" in clause:
        return any_of([clause, NULL]) if clause else clause
    also_null = {**clause, "type": [clause["type"], "null"]}
    names = [also_null.pop("const")] if "const" in clause else clause.get("enum")
    return {**also_null, "enum": [*names, None]} if names else also_null


def _unnamed(pattern: str) -> str:
    return re.sub(r"\(\?P<\w+>", "(?:", pattern)
