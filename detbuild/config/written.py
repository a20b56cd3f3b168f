"""Formats a complete config as YAML, with the source of each value as a comment."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from detbuild.config.scalars import plain_scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from detbuild.config.problems import KeyPath
    from detbuild.config.provenance import Value

_WIDEST: Final = 60  # column of the comments, unless a value is longer
_WORD: Final = re.compile(r"[A-Za-z_./][\w./@+-]*(:[\w./@+-]+)*", re.ASCII)
_BASIC_PLANE: Final = 0xFFFF


def written(values: Iterable[Value]) -> str:
    """Format in block style, one line per value; parsing it gives the same config.

    Args:
        values: grouped by section.
    """
    lines = list(_lines(values))
    width = min(_WIDEST, max((len(text) for text, source in lines if source), default=0))
    commented = (f"{text:<{width}}  # {_visible(source)}" if source else text for text, source in lines)
    return "".join(f"{line}\n" for line in commented)


def _lines(values: Iterable[Value]) -> Iterator[tuple[str, str]]:
    """Yield each line with the source of its value, if any."""
    above: KeyPath = ()
    for value in values:
        shared = _shared(above, value.path)
        *sections, last = value.path[shared:]
        lead = "  " * shared
        for depth, key in enumerate(sections, shared):
            if isinstance(key, int):  # its map or list starts on the same line
                lead += _key(key)
            else:
                yield f"{lead}{_key(key)}".rstrip(), ""
                lead = "  " * (depth + 1)
        yield f"{lead}{_key(last)}{_scalar(value.value)}", value.source
        above = value.path


def _shared(one: KeyPath, other: KeyPath) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((depth for depth, (a, b) in pairs if a != b), min(len(one), len(other)))


def _key(key: str | int) -> str:
    return "- " if isinstance(key, int) else f"{_scalar(key)}: "


def _scalar(value: object) -> str:
    if isinstance(value, str) and _WORD.fullmatch(value) and plain_scalar(value) == value:
        return value
    return _visible(json.dumps(value, ensure_ascii=False))


def _visible(text: str) -> str:
    """Escape line breaks and terminal escapes; inside quotes YAML reads them back."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number <= _BASIC_PLANE else f"\\U{number:08x}"
