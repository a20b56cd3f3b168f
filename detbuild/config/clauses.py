"""Builders of JSON Schema clauses, with which a section describes the rules of its validators."""

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
class SchemaForm:
    """Metadata of a type whose form in a file differs: `form` maps its schema to that of the file."""

    form: Callable[[Clause], Clause]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Clause:
        return self.form(handler(core))


def or_schema(other: Clause) -> SchemaForm:
    """Accept the type, or what fits `other`."""
    return SchemaForm(lambda clause: any_of([clause, other]))


def require(*names: str) -> Clause:
    """Require all of these fields; null counts as absent."""
    return {"required": list(names), "properties": {name: {"not": NULL} for name in names}}


def not_both(one: str, other: str) -> Clause:
    return {"not": require(one, other)}


def any_of(clauses: Iterable[Clause]) -> Clause:
    return {"anyOf": list(clauses)}


def when(condition: Clause, then: Clause) -> Clause:
    return {"if": condition, "then": then}


def on_field(key: str, clause: Clause) -> Clause:
    """Apply a clause to a field if it is present."""
    return {"properties": {key: clause}}


def anchored(pattern: str) -> str:
    """Anchor a pattern at both ends, in the syntax that Python and ECMAScript share.

    Python's `$` also matches before a final line break, which the look-ahead excludes.
    """
    return rf"^(?:{_unnamed(pattern)})$(?!\n)"


def matching_text(pattern: str, meaning: str, **more: object) -> Clause:
    """Require text that matches as a whole. Editors show `patternErrorMessage` for other text."""
    return {
        "type": "string",
        "pattern": anchored(pattern),
        "patternErrorMessage": f"must be {meaning}",
        **more,
    }


def not_matching(pattern: str) -> str:
    """Prefix of a pattern that excludes all text that this one matches as a whole."""
    return rf"(?!(?:{pattern})$(?!\n))"


def closed_map(clauses: Mapping[str, Clause]) -> Clause:
    """Allow these fields only, each optional."""
    return {"type": "object", "properties": dict(clauses), "additionalProperties": False}


def int_between(least: int, most: int) -> Clause:
    """Require a whole number in a range. JSON Schema and the parser both accept 2.0 as one."""
    return {"type": "integer", "minimum": least, "maximum": most}


def nullable(clause: Clause) -> Clause:
    """Accept null too."""
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
