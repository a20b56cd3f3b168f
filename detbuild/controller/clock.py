"""The controller's clock: monotonic, and replaceable in tests."""

from __future__ import annotations

import select
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Return seconds since an arbitrary start."""

    def wait(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        select.select([], [], [], seconds)
