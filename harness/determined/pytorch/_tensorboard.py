"""TensorBoard event files: written where the package is installed, left out with a word where it is not."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from determined.pytorch._types import Untyped

_PAUSE = 1.0  # seconds
_LOG = logging.getLogger(__name__)


class _Silent:
    """Stands in for a SummaryWriter: every method exists and does nothing."""

    def __getattr__(self, name: str) -> Untyped:
        return lambda *_args, **_keywords: None


class Board:
    """The writer of one trial, made when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.enabled = True
        self._writer: Any = None
        self._flushed = 0.0

    @property
    def writer(self) -> Untyped:
        if self._writer is None:
            self._writer = self._open()
        return self._writer

    def add(self, kind: str, step: int, metrics: Mapping[str, object]) -> None:
        """Write the metrics that are numbers.

        Args:
            kind: "val" for validation, else "".
            step: batches trained.
            metrics: names to values.
        """
        if not self.enabled or isinstance(self.writer, _Silent):
            return
        for name, value in metrics.items():
            if isinstance(value, (int, float)):
                prefix = f"{kind}_" if kind and not name.startswith(kind) else ""
                self.writer.add_scalar(f"Determined/{prefix}{name}", value, step)
        if kind or time.monotonic() - self._flushed >= _PAUSE:
            self.writer.flush()  # waits for a thread, so not for every report
            self._flushed = time.monotonic()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> Untyped:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            _say_once()
            return _Silent()
        return SummaryWriter(log_dir=str(self.directory))


@functools.cache
def _say_once() -> None:
    _LOG.warning("no TensorBoard files are written: the package tensorboard is not installed")
