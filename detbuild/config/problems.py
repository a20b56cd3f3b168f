"""What is wrong with a config: each problem in the user's words, all of them in one error."""

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
_MAX_WORDS: Final = 120  # with a key path of 50 a line stays below 200 characters
_MAX_PATH: Final = 50
_PLAIN_KEY: Final = re.compile(r"[\w./<>-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `on_key`: the key itself is, rather than its value. `later`: another source of the same config may hint
    it.
    """

    path: KeyPath
    what: str
    hint: str = ""
    on_key: bool = False
    later: bool = False

    def line(self, place: str) -> str:
        """`file:line:column: key.path: what; hint`, on one line."""
        words = _cut(_visible("; ".join(filter(None, (self.what, self.hint)))), _MAX_WORDS)
        where = _cut_middle(dotted(self.path), _MAX_PATH)
        return ": ".join(filter(None, (place, where, words)))


class ConfigErrors(ConfigError):  # noqa: N818  (it holds many)
    """All problems of one config; `str()` has one line for each."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(_visible(masked_urls(line)) for line in lines)
        shown = [*self.lines[:MAX_SHOWN]]
        if len(self.lines) > MAX_SHOWN:
            shown.append(f"... and {len(self.lines) - MAX_SHOWN} more")
        super().__init__("\n".join(shown))


def dotted(path: KeyPath) -> str:
    """`searcher.max_length`, `bind_mounts[2].host_path`; a key that is not a word is quoted."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_key(part)}"
    return text.removeprefix(".")


def show(value: object) -> str:
    """A value as a reader of YAML knows it, short enough for one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"the text {_cut(value, 40)!r}"
    if isinstance(value, (int, float)):
        return _cut(f"{value:g}" if isinstance(value, float) else str(value), 40)
    return "a map" if isinstance(value, dict) else "a list"


def _visible(text: str) -> str:
    """Neither a line break nor a terminal's escape in a user's text may reach the screen as such."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else repr(key)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _cut_middle(text: str, limit: int) -> str:
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"
