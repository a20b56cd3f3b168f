"""Text for a terminal: control characters in names and log lines are escaped."""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata

from detbuild.credentials import masked_urls

_FIRST_ITEMS = 4  # of a list
_LONGEST_VALUE = 80  # characters of text
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def visible(text: str) -> str:
    r"""Show control characters, and those that reorder or hide text, as escapes such as `\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _harmless(char) else escape(char) for char in text)


def line_of_output(text: str) -> str:
    """Return a line of program output: the last state of a progress bar, no colours, escaped."""
    last = text.rstrip("\r").rpartition("\r")[2]
    return "\t".join(visible(part) for part in _COLOUR.sub("", last).split("\t"))


def width(text: str) -> int:
    """Return the terminal columns of a text: Chinese, Japanese and Korean letters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "FW" else 1
        for char in text
    )


def cut(text: str, room: int) -> str:
    """Cut the middle out of a text to fit `room` columns, because names differ at either end."""
    if width(text) <= room:
        return text
    head, tail = text, ""
    kept = max(0, room - 2)
    while width(head) > kept - kept // 2:
        head = head[:-1]
    for char in reversed(text[len(head) :]):
        if width(char + tail) > kept // 2:
            break
        tail = char + tail
    return f"{head}..{tail}"


def terminal_width() -> int | None:
    """Return the columns of the terminal; None if stdout is not one and nothing may be cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def number(value: object) -> str:
    """Format a metric: six significant digits, the first values of a list, the start of a text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(map(number, value[:_FIRST_ITEMS]))
        return f"[{shown}, ... {len(value):,} values]" if len(value) > _FIRST_ITEMS else f"[{shown}]"
    text = masked_urls(str(value))
    return visible(text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}...")


def _harmless(char: str) -> bool:
    # Cc: controls; Cf: bidirectional overrides and zero-width marks; Cs: lone surrogates; Zl, Zp: line ends.
    return unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def escape(char: str) -> str:
    """Return a character as text that a terminal does not interpret."""
    if "\udc80" <= char <= "\udcff":  # a byte of a name that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
