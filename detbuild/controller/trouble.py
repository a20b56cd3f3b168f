"""Exponential back-off for infrastructure errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detbuild.controller.clock import Clock

_FIRST = 0.25  # seconds
_LONGEST = 4.0


@dataclass(slots=True)
class Backoff:
    clock: Clock
    times: int = 0
    _until: float = 0.0

    @property
    def active(self) -> bool:
        return self.times > 0 and self.clock.now() < self._until

    def failed(self) -> None:
        self._until = self.clock.now() + min(_LONGEST, _FIRST * 2.0**self.times)
        self.times = min(self.times + 1, 10)

    def reset(self) -> None:
        self.times = 0
