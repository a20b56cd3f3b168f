"""The clock of the controller: it never goes back, and tests have their own."""

from __future__ import annotations

import select
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since some moment in the past."""

    def wait(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        select.select([], [], [], seconds)
