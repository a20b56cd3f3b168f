"""Strict JSON: the encoder of all JSON that detbuild prints or returns."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum


def json_text(value: object, *, indent: int | None = 2) -> str:
    r"""Encode as JSON that every parser accepts, in ASCII, with keys in the given order.

    NaN and infinities become the strings "NaN", "Infinity" and "-Infinity", as in the records of a run. Bytes
    that are not UTF-8 become escapes such as `\x80`.

    Args:
        value: maps, lists, tuples, data classes and scalars; any other object becomes its `str()`.
        indent: spaces per level; None: one line.
    """
    return json.dumps(_strict(value), indent=indent, ensure_ascii=True, allow_nan=False)


def _strict(value: object) -> object:  # noqa: PLR0911  (one case a type)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else not_finite(value)
    if isinstance(value, Enum):
        return _strict(value.value)
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, Mapping):
        return {_unicode(_key(key)): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_strict(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _strict(asdict(value))
    return _unicode(str(value))


def not_finite(value: float) -> str:
    """Return the string for a number that JSON does not have."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _key(key: object) -> str:
    if isinstance(key, float) and not math.isfinite(key):
        return not_finite(key)
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    return str(key)


def _unicode(text: str) -> str:
    """Escape lone surrogates, which strict parsers reject."""
    if text.isascii():
        return str(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(_escaped(char) if "\ud800" <= char <= "\udfff" else char for char in text)
    return str(text)


def _escaped(surrogate: str) -> str:
    byte = ord(surrogate) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else f"\\u{ord(surrogate):04x}"  # noqa: PLR2004  (one byte)
