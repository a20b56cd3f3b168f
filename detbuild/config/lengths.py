"""Lengths of training: `{batches: n}`, `{records: n}` or `{epochs: n}`."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, InstanceOf, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from detbuild.config.clauses import Clause, any_of, closed_map, int_between, nullable, require
from detbuild.config.fields import integral
from detbuild.config.problems import show
from detbuild.config.section import wrong
from detbuild.config.values import LARGEST
from determined._run_info import Length

UNITS: Final = ("batches", "records", "epochs")


def _length(value: object, *, least: int) -> Length:
    if isinstance(value, Length):
        return value
    if isinstance(value, dict) and (unknown := next((key for key in value if key not in UNITS), None)):
        raise wrong("unknown unit of length", at=(unknown,), hint=_hint(value), on_key=True)
    if not isinstance(value, dict) or len(value) != 1:
        raise wrong(f"must be a length, not {_given(value)}", hint=_hint(value))
    ((unit, written),) = value.items()
    count = integral(written)
    if type(count) is not int or count < least:
        raise wrong(f"must be a whole number of at least {least}, not {show(count)}", at=(unit,))
    return Length(unit, count)


def _given(value: object) -> str:
    if isinstance(value, dict):
        return f"a map of {', '.join(map(str, value)) or 'nothing'}"
    return show(value)


def _hint(value: object) -> str:
    count = value if type(value) is int else 100
    return f"write one of {{batches: {count}}}, {{records: {count}}}, {{epochs: {count}}}"


def _period(value: object) -> Length:
    return _length(value, least=0)


def _training(value: object) -> Length:
    # A bare number is in batches for a trial class, and in the unit of its own choice for a script.
    return _length({"batches": value} if type(integral(value)) is int else value, least=1)


def training_length(value: object) -> Length | None:
    """Parse a length of training; None if absent or invalid."""
    try:
        return None if value is None else _training(value)
    except PydanticCustomError:
        return None


def _written(length: Length) -> dict[str, int]:
    return {length.unit: length.count}


def _schema(least: int) -> Clause:
    count = nullable(int_between(least, LARGEST))
    return {**closed_map(dict.fromkeys(UNITS, count)), "oneOf": [require(unit) for unit in UNITS]}


Period = Annotated[
    InstanceOf[Length], BeforeValidator(_period), PlainSerializer(_written), WithJsonSchema(_schema(0))
]
TrainingLength = Annotated[
    InstanceOf[Length],
    BeforeValidator(_training),
    PlainSerializer(_written),
    WithJsonSchema(any_of([_schema(1), int_between(1, LARGEST)])),
]
NEVER: Final = Length("batches", 0)
