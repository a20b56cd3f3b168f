"""Frozen dataclasses to JSON and back, for journals, requests, decisions and processes of our own.

What is read is checked field by field against the annotations, so that a value of a wrong type in a damaged
file is reported here by its name, before it looks like a bug in detbuild elsewhere.
"""

from __future__ import annotations

import json
import sys
from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import Enum
from functools import lru_cache, partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
AnyFloat = float  # as an annotation: of any size, and infinite too
_NONE: Final = type(None)
_GREATEST: Final = 1 << 63  # upper bound of SQLite's integers
_PLAIN: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "AnyFloat": (float, int),
    "bool": (bool,),
    "None": (_NONE,),
    "object": (str, int, float, bool, _NONE, list, dict),
}
_UNBOUNDED: Final = frozenset({"object", "AnyFloat"})
_HOLDERS: Final[Mapping[str, type]] = {"Mapping": dict, "tuple": list, "Sequence": list}


def to_json(value: Any) -> dict[str, object]:  # noqa: ANN401  (a dataclass)
    """Convert a dataclass to a JSON object, with its `kind` first if its class has one."""
    kind = getattr(type(value), "kind", None)
    return {"kind": kind, **asdict(value)} if kind else asdict(value)


def line(raw: Mapping[str, object]) -> bytes:
    """Encode a JSON object as one line."""
    return json.dumps(raw, separators=(",", ":"), default=list).encode() + b"\n"


def parsed(data: bytes) -> dict[str, object]:
    """Parse a JSON object, such as a line; raise ValueError for anything else."""
    try:
        return as_map(json.loads(data.decode()))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def as_map(raw: object) -> dict[str, object]:
    """Return a JSON object unchanged; raise ValueError for anything else."""
    if isinstance(raw, dict):
        return raw
    raise ValueError("is not a JSON object")


def kinds(union: object) -> Mapping[str, Callable[..., Any]]:
    """Return the classes of a union by their `kind`."""
    return {cls.kind: cls for cls in get_args(union)}


def from_kind(classes: Mapping[str, Callable[..., T]], raw: Mapping[str, object]) -> T:
    """Create the dataclass that the `kind` of a JSON object names.

    Raises:
        ValueError: The kind is unknown, or a field is missing or of a wrong type.
    """
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in classes:
        raise ValueError(f"has an unknown kind: {str(kind)[:40]!r}")
    return from_json(classes[kind], raw)


def from_json(cls: Callable[..., T], raw: object, *, least: Mapping[str, Any] | None = None) -> T:
    """Create a dataclass from a JSON object; unknown keys are ignored, and lists become tuples.

    Args:
        cls: The class; its fields may be other dataclasses and enums.
        raw: The object.
        least: Defaults of fields that may be missing in `raw`.

    Raises:
        ValueError: It is not an object, or a field is missing or of a wrong type.
    """
    found = as_map(raw)
    known, needed = _fields(cls)
    values: dict[str, Any] = dict(least or {})
    for name, value in found.items():
        expected = known.get(name)
        if expected is not None:
            values[name] = _checked(name, value, expected)
    missing = needed - values.keys()
    if missing:
        raise ValueError(f"has no `{min(missing)}`")
    return cls(**values)


class _Field(NamedTuple):
    classes: frozenset[type]  # allowed classes of the JSON value
    is_free: bool  # any value is allowed
    has_bounds: bool  # of numbers
    item: _Field | None  # the type of each item of a list or a map
    is_tuple: bool
    make: Callable[[Any], object] | None = None  # an enum or a dataclass


@lru_cache(128)
def _fields(cls: Callable[..., object]) -> tuple[dict[str, _Field], frozenset[str]]:
    found = fields(cls)  # type: ignore[arg-type]  # a dataclass
    needed = {f.name for f in found if f.default is MISSING and f.default_factory is MISSING}
    names = vars(sys.modules[cls.__module__])
    return {f.name: _field(str(f.type), names) for f in found}, frozenset(needed)


def _field(annotation: str, names: Mapping[str, object]) -> _Field:
    classes: set[type] = set()
    item, is_tuple, make = None, False, None
    for option in annotation.split(" | "):
        name, _, inner = option.partition("[")
        if name in _PLAIN:
            classes.update(_PLAIN[name])
        elif name in _HOLDERS:
            classes.add(_HOLDERS[name])
            is_tuple = is_tuple or name == "tuple"
            arguments = inner.removesuffix("]").removesuffix(", ...")
            item = _field(arguments.partition(", ")[2] if name == "Mapping" else arguments, names)
        else:
            json_class, make = _made(names[name])
            classes.add(json_class)
    free = annotation == "object"
    has_bounds = not _UNBOUNDED & set(annotation.split(" | "))
    return _Field(frozenset(classes), free, has_bounds, item, is_tuple, make)


def _made(cls: Any) -> tuple[type, Callable[[Any], object]]:  # noqa: ANN401  (the class of an annotation)
    """Return the class of the JSON value, and what makes the field of it."""
    if is_dataclass(cls):
        return dict, lambda value: from_json(cls, value)  # type: ignore[arg-type]  # a class
    if isinstance(cls, type) and issubclass(cls, Enum):
        return str, cls
    if get_origin(cls) is Literal:
        return str, partial(_one_of, get_args(cls))
    raise TypeError(f"{cls} is neither a dataclass nor an enum")


def _one_of(names: tuple[str, ...], value: str) -> str:
    if value in names:
        return value
    raise ValueError(f"has {value[:40]!r} instead of one of {', '.join(names)}")


def _checked(name: str, value: Any, expected: _Field) -> Any:  # noqa: ANN401  (of the type that is expected)
    kind = value.__class__
    if kind not in expected.classes:
        if isinstance(value, (tuple, Enum)):  # of `to_json`, before it is text
            return _checked(name, list(value) if isinstance(value, tuple) else value.value, expected)
        raise ValueError(f"has a `{name}` that is {_named(value)}")
    if expected.make is not None and kind in {str, dict}:
        return expected.make(value)
    if kind is list:
        found = [_checked(name, one, expected.item) for one in value] if expected.item else value
        return tuple(found) if expected.is_tuple else found
    if kind is dict and expected.item is not None and not expected.item.is_free:
        return {key: _checked(name, one, expected.item) for key, one in value.items()}
    if kind in {int, float} and expected.has_bounds and not (isfinite(value) and abs(value) < _GREATEST):
        raise ValueError(f"has a `{name}` that is out of range")
    return value


def _named(value: object) -> str:
    words = {str: "text", bool: "true or false", int: "a number", float: "a number", _NONE: "null"}
    return words.get(value.__class__) or ("a map" if isinstance(value, dict) else "a list")
