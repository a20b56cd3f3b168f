"""How a script that runs again inside a run hands over its class: `create` throws it out of the script."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_expected = ContextVar("expected", default=False)


class TrialGiven(BaseException):
    """Unwinds the script: nothing after its call of `create` runs."""

    def __init__(self, trial_class: type) -> None:
        super().__init__(trial_class.__name__)
        self.trial_class = trial_class


@contextmanager
def handover() -> Iterator[None]:
    """Make `create` hand over its class while the block runs."""
    token = _expected.set(True)
    try:
        yield
    finally:
        _expected.reset(token)


def expected() -> bool:
    return _expected.get()
