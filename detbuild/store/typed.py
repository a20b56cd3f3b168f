"""Parses JSON that may be damaged into dataclasses, and checks each field against its annotation.

A value of a wrong type in a header, in attributes or in a journal is reported here by name, before it looks
like a bug in detbuild elsewhere.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
_NONE: Final = type(None)
_GREATEST: Final = 1 << 63  # upper bound of SQLite's integers
_PLAIN: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "Verb": (str,),  # a Literal: its reader checks the value
    "None": (_NONE,),
    "object": (str, int, float, bool, _NONE, list, dict),
}


_HOLDERS: Final[Mapping[str, type]] = {"Mapping": dict, "tuple": list, "Sequence": list}


class _Field(NamedTuple):
    classes: frozenset[type]  # allowed classes of the JSON value
    is_free: bool  # any value is allowed, including numbers of any size
    item: _Field | None  # the type of each item of a list or a map
    is_tuple: bool


def typed(cls: Callable[..., T], raw: object, *, least: Mapping[str, Any] | None = None) -> T:
    """Create a dataclass from a JSON object; unknown keys are ignored, and lists become tuples.

    Args:
        least: Defaults of fields that may be missing in `raw`.

    Raises:
        ValueError: It is not an object, or a field is missing or of a wrong type.
    """
    if not isinstance(raw, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004  (what is wrong is the content of a file)
    known, needed = _fields(cls)
    values: dict[str, Any] = dict(least or {})
    for name, value in raw.items():
        expected = known.get(name)
        if expected is not None:
            values[name] = _checked(name, value, expected)
    missing = needed - values.keys()
    if missing:
        raise ValueError(f"has no `{min(missing)}`")
    return cls(**values)


@lru_cache(64)
def _fields(cls: Callable[..., object]) -> tuple[dict[str, _Field], frozenset[str]]:
    found = fields(cls)  # type: ignore[arg-type]  # a dataclass
    needed = {f.name for f in found if f.default is MISSING and f.default_factory is MISSING}
    return {f.name: _field(str(f.type)) for f in found}, frozenset(needed)


def _field(annotation: str) -> _Field:
    classes: set[type] = set()
    item, is_tuple = None, False
    for option in annotation.split(" | "):
        name, _, inner = option.partition("[")
        if name in _PLAIN:
            classes.update(_PLAIN[name])
            continue
        classes.add(_HOLDERS[name])
        is_tuple = is_tuple or name == "tuple"
        arguments = inner.removesuffix("]").removesuffix(", ...")
        item = _field(arguments.partition(", ")[2] if name == "Mapping" else arguments)
    return _Field(frozenset(classes), annotation == "object", item, is_tuple)


def _checked(name: str, value: Any, expected: _Field) -> Any:  # noqa: ANN401  (of the type that is expected)
    kind = value.__class__
    if kind not in expected.classes:
        raise ValueError(f"has a `{name}` that is {_named(value)}")
    if kind is list:
        found = [_checked(name, one, expected.item) for one in value] if expected.item else value
        return tuple(found) if expected.is_tuple else found
    if kind is dict and expected.item is not None and not expected.item.is_free:
        return {key: _checked(name, one, expected.item) for key, one in value.items()}
    if kind in {int, float} and not expected.is_free and not (isfinite(value) and abs(value) < _GREATEST):
        raise ValueError(f"has a `{name}` that is out of range")
    return value


def _named(value: object) -> str:
    words = {str: "text", bool: "true or false", int: "a number", float: "a number", _NONE: "null"}
    return words.get(value.__class__) or ("a map" if isinstance(value, dict) else "a list")
