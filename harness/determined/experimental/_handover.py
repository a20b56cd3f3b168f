"""How a script inside a run hands over its class: `create` raises it out of the script."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_expected = ContextVar("expected", default=False)


class TrialGiven(BaseException):
    """Ends the script at its call of `create`."""

    def __init__(self, trial_class: type) -> None:
        super().__init__(trial_class.__name__)
        self.trial_class = trial_class


@contextmanager
def handover() -> Iterator[None]:
    """Make `create` hand over its class during the block."""
    token = _expected.set(True)
    try:
        yield
    finally:
        _expected.reset(token)


def expected() -> bool:
    return _expected.get()
