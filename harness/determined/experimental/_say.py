"""The logger of `determined.experimental`, which shows its lines to a program that has set up no logging."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger("determined.experimental")


@contextmanager
def logged() -> Iterator[None]:
    """Show what is logged, unless the program has set up logging of its own."""
    if LOG.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), LOG.level
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)


def note_ignored(name: str, value: object, *, why: str) -> None:
    """Say once that an argument has no effect, if it was given."""
    if value is not None:
        with logged():
            LOG.info("%s is ignored: %s", name, why)
