"""Problems of a config, all reported in one error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.credentials import masked_urls
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath = tuple[str | int, ...]

MAX_SHOWN: Final = 50  # lines of one error
_MAX_WORDS: Final = 120  # with a key path of 50, a line stays below 200 characters
_MAX_PATH: Final = 50
_PLAIN_KEY: Final = re.compile(r"[\w./<>-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a config.

    `on_key`: the key itself is wrong, not its value. `later`: another source of the config may repair it.
    """

    path: KeyPath
    what: str
    hint: str = ""
    on_key: bool = False
    later: bool = False

    def line(self, place: str) -> str:
        """Format as one line: `file:line:column: key.path: what; hint`."""
        words = _cut(_visible("; ".join(filter(None, (self.what, self.hint)))), _MAX_WORDS)
        where = _cut_middle(dotted(self.path), _MAX_PATH)
        return ": ".join(filter(None, (place, where, words)))


class ConfigErrors(ConfigError):  # noqa: N818  (a plural)
    """All problems of one config, one per line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(_visible(masked_urls(line)) for line in lines)
        shown = [*self.lines[:MAX_SHOWN]]
        if len(self.lines) > MAX_SHOWN:
            shown.append(f"... and {len(self.lines) - MAX_SHOWN} more")
        super().__init__("\n".join(shown))


def dotted(path: KeyPath) -> str:
    """Format a path: `searcher.max_length`, `bind_mounts[2].host_path`; quote a key that is not a word."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_key(part)}"
    return text.removeprefix(".")


def show(value: object) -> str:
    """Format a value as in YAML, short enough for one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return repr(_cut(value, 40))
    if isinstance(value, (int, float)):
        return _cut(f"{value:g}" if isinstance(value, float) else str(value), 40)
    return "a map" if isinstance(value, dict) else "a list"


def _visible(text: str) -> str:
    """Escape line breaks and terminal escapes in a user's text."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else repr(key)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _cut_middle(text: str, limit: int) -> str:
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"
