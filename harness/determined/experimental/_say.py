"""The logger of `determined.experimental`, visible even if the program sets up no logging."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger("determined.experimental")
_ALL = logging.getLogger("determined")


class _Visible(logging.Formatter):
    """Escapes control characters, so that a name from a config cannot affect a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


@contextmanager
def logged() -> Iterator[None]:
    """Show the log of `determined`, unless the program has set up logging."""
    if LOG.hasHandlers():
        yield
        return
    handler, level, propagate = logging.StreamHandler(), _ALL.level, _ALL.propagate
    handler.setFormatter(_Visible("%(levelname)s: %(message)s"))
    _ALL.addHandler(handler)
    _ALL.setLevel(logging.INFO)
    _ALL.propagate = False  # otherwise logging.basicConfig in user code would duplicate each line
    try:
        yield
    finally:
        _ALL.removeHandler(handler)
        _ALL.setLevel(level)
        _ALL.propagate = propagate


def note_ignored(name: str, value: object, *, why: str) -> None:
    """Log once that a given argument has no effect."""
    if value is not None:
        with logged():
            LOG.info("%s is ignored: %s", name, why)


def note_no_server(call: str) -> None:
    """Log that a call has no effect."""
    with logged():
        LOG.info("%s has no effect: there is no server; all calls use the experiments of this host", call)
