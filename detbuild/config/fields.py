"""Types of single fields that several sections share."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field, Strict

T = TypeVar("T")

# YAML gives lists and the models keep tuples; the items stay strict.
Many = Annotated[tuple[T, ...], Strict(strict=False)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
