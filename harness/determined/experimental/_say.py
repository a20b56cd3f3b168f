"""The logger of `determined.experimental`; a program without logging of its own sees its lines too."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger("determined.experimental")
_ALL = logging.getLogger("determined")


class _Visible(logging.Formatter):
    """Shows control characters as escapes: a name from a config may not act on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


@contextmanager
def logged() -> Iterator[None]:
    """Show what all of `determined` logs, unless the program has set up logging of its own."""
    if LOG.hasHandlers():
        yield
        return
    handler, level, propagate = logging.StreamHandler(), _ALL.level, _ALL.propagate
    handler.setFormatter(_Visible("%(levelname)s: %(message)s"))
    _ALL.addHandler(handler)
    _ALL.setLevel(logging.INFO)
    _ALL.propagate = False  # user code may call logging.basicConfig meanwhile, and would show each line again
    try:
        yield
    finally:
        _ALL.removeHandler(handler)
        _ALL.setLevel(level)
        _ALL.propagate = propagate


def note_ignored(name: str, value: object, *, why: str) -> None:
    """Say once that an argument has no effect, if it was given."""
    if value is not None:
        with logged():
            LOG.info("%s is ignored: %s", name, why)
