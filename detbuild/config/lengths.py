"""Lengths of training: `{batches: n}`, `{records: n}` or `{epochs: n}`."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, InstanceOf, PlainSerializer

from detbuild.config.problems import show
from detbuild.config.section import wrong
from determined._run_info import Length

UNITS: Final = ("batches", "records", "epochs")


def _length(value: object, *, least: int) -> Length:
    if isinstance(value, Length):
        return value
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= set(UNITS):
        raise wrong(f"must be a length, not {_given(value)}", mend=_mend(value))
    ((unit, count),) = value.items()
    if type(count) is not int or count < least:
        raise wrong(f"must be a whole number of at least {least}, not {show(count)}", at=(unit,))
    return Length(unit, count)


def _given(value: object) -> str:
    if isinstance(value, dict):
        return f"a map of {', '.join(map(str, value)) or 'nothing'}"
    return show(value)


def _mend(value: object) -> str:
    count = value if type(value) is int else 100
    return f"write one of {{batches: {count}}}, {{records: {count}}}, {{epochs: {count}}}"


def _period(value: object) -> Length:
    return _length(value, least=0)


def _training(value: object) -> Length:
    # A bare number is a length without a unit: what a script counts in, and batches for a trial class.
    return _length({"batches": value} if type(value) is int else value, least=1)


def _written(length: Length) -> dict[str, int]:
    return {length.unit: length.count}


Period = Annotated[InstanceOf[Length], BeforeValidator(_period), PlainSerializer(_written)]
TrainingLength = Annotated[InstanceOf[Length], BeforeValidator(_training), PlainSerializer(_written)]
NEVER: Final = Length("batches", 0)
