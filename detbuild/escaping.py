"""Text for a terminal: control characters in names and log lines are escaped, long values cut."""

from __future__ import annotations

import re
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
