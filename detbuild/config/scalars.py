"""The core schema of YAML 1.2 (chapter 10.3.2): `1e-4` is a number, `NO` is text, `010` is ten."""

from __future__ import annotations

import json
import re
from typing import Final

Scalar = str | int | float | bool | None

MAX_DIGITS: Final = 400  # enough for any double or 64-bit integer; int() itself fails at 4,300

_CONSTANTS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NUMBER_START: Final = frozenset("-+.0123456789")
_TAGS: Final = {
    "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
}
TEXT_TAGS: Final = frozenset({"!", "tag:yaml.org,2002:str"})


def plain_scalar(text: str) -> Scalar:
    """Resolve a scalar without quotes.

    Raises:
        ValueError: a number of more than MAX_DIGITS digits.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    return _number(text) if text[0] in _NUMBER_START else text


def key_text(value: Scalar) -> str:
    """Format a scalar as a JSON object key: `0`, `true`, `null`, `1.5`."""
    return value if isinstance(value, str) else json.dumps(value)


def tagged_scalar(text: str, tag: str) -> Scalar:
    """Resolve a scalar with an explicit tag, e.g. `!!float 1`.

    Raises:
        ValueError: the tag is not in the core schema, or the text does not fit it.
    """
    if tag in TEXT_TAGS:
        return text
    if tag not in _TAGS:
        raise ValueError(f"the tag {tag!r} is not allowed")
    value = plain_scalar(text)
    if _TAGS[tag] is float and type(value) is int:
        return float(value)
    if type(value) is not _TAGS[tag]:
        raise ValueError(f"{text[:40]!r} does not fit its tag {tag!r}")
    return value


def _number(text: str) -> Scalar:
    matches = {pattern: pattern.fullmatch(text) for pattern in (_INTEGER, _OCTAL, _HEX, _FLOAT)}
    if not any(matches.values()):
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} characters is too long")
    if matches[_INTEGER]:
        return int(text)
    if matches[_OCTAL]:
        return int(text.removeprefix("0o"), 8)
    return int(text, 16) if matches[_HEX] else float(text)
