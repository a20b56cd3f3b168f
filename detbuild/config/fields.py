"""Types of single fields that several sections share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field, Strict
from pydantic_core import core_schema

from detbuild.config.clauses import matching_text
from detbuild.config.problems import show
from detbuild.config.section import wrong
from detbuild.config.values import LARGEST, SMALLEST

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

    from detbuild.config.clauses import Clause

T = TypeVar("T")


def integral(value: object) -> object:
    """Convert `1e3` or `2.0` to an integer; return anything else, or beyond 64 bits, unchanged."""
    if isinstance(value, float) and value.is_integer() and SMALLEST <= value <= LARGEST:
        return int(value)
    return value


@dataclass(frozen=True, slots=True)
class IntRange:
    """Metadata of an `int`: its bounds, both inclusive. Accepts 2.0, as JSON does not tell it from 2."""

    least: int = SMALLEST
    most: int = LARGEST

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        number = core_schema.int_schema(ge=self.least, le=self.most, strict=True)
        return core_schema.no_info_before_validator_function(integral, number)


@dataclass(frozen=True, slots=True)
class TextPattern:
    """Metadata of a `str`: a pattern for the whole text, and its `meaning` in words."""

    pattern: str
    meaning: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, _core: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> Clause:
        return matching_text(self.pattern, self.meaning)

    def check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise wrong(f"must be {self.meaning}, not {show(value)}")
        return value


# A tuple, read from a YAML list; its items stay strict.
ListOf = Annotated[tuple[T, ...], Strict(strict=False)]
Integer = Annotated[int, IntRange()]
Count = Annotated[int, IntRange(0)]
Positive = Annotated[int, IntRange(1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
AbsolutePath = Annotated[str, TextPattern(r"/[^\0]*", "an absolute path")]
