"""Types of single fields that several sections share."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, Strict

from detbuild.config.problems import show
from detbuild.config.section import wrong

T = TypeVar("T")

# YAML gives lists and the models keep tuples; the items stay strict.
Many = Annotated[tuple[T, ...], Strict(strict=False)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def matching(pattern: str, meaning: str) -> AfterValidator:
    """Accept text that matches as a whole; `meaning` says what the text must be."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise wrong(f"must be {meaning}, not {show(value)}")
        return value

    return AfterValidator(check)


AbsolutePath = Annotated[str, matching(r"/[^\0]*", "an absolute path")]
