"""TensorBoard event files, written if the package tensorboard is installed."""

from __future__ import annotations

import functools
import importlib
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from determined.pytorch._device import Untyped

_PAUSE = 1.0  # seconds
_POINTS = 100  # written per pause: charts do not show more, and each costs as much as a small batch
_LOG = logging.getLogger(__name__)


class _Silent:
    """A SummaryWriter whose methods do nothing."""

    def __getattr__(self, name: str) -> Untyped:
        return lambda *_args, **_keywords: None


class TensorBoardWriter:
    """The TensorBoard writer of one trial, created lazily."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.enabled = True
        self._writer: Any = None
        self._flushed = 0.0
        self._waiting: list[tuple[str, int, Mapping[str, object], float]] = []

    @property
    def writer(self) -> Untyped:
        """The SummaryWriter for the trial's own data."""
        if isinstance(self._opened, _Silent):
            _warn_once()
        return self._opened

    @property
    def _opened(self) -> Untyped:
        if self._writer is None:
            self._writer = self._open()
        return self._writer

    def add(self, kind: str, step: int, metrics: Mapping[str, object]) -> None:
        """Write the numeric metrics, at once or within a second.

        Args:
            kind: "val" for validation, otherwise "".
            step: batches trained.
            metrics: names to values.
        """
        if not self.enabled:
            return
        now = time.time()
        self._waiting.append((kind, step, metrics, now))
        if kind or not 0 <= now - self._flushed < _PAUSE:
            self._write()
            self._opened.flush()  # waits for a thread, so not after every report
            self._flushed = now

    def close(self) -> None:
        if self._writer is not None:
            self._write()
            self._writer.close()
            self._writer = None

    def _write(self) -> None:
        """Write one event per report; `add_scalar` would write one per metric."""
        waiting, self._waiting = self._waiting, []
        if isinstance(self._opened, _Silent):
            return
        every = -(-len(waiting) // _POINTS)
        for kind, step, metrics, at in waiting[::-1][:: every or 1][::-1]:
            values = [
                {"tag": _tag(kind, name), "simple_value": value}
                for name, value in metrics.items()
                if isinstance(value, (int, float))
            ]
            self._opened.file_writer.add_summary(_summary(values), step, at)

    def _open(self) -> Untyped:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            return _Silent()
        return SummaryWriter(log_dir=str(self.directory))


def _tag(kind: str, name: str) -> str:
    prefix = f"{kind}_" if kind and not name.startswith(kind) else ""
    return f"Determined/{prefix}{name}"


def _summary(values: list[dict[str, Any]]) -> Untyped:
    return importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary(value=values)


@functools.cache
def _warn_once() -> None:
    _LOG.warning(
        "no TensorBoard files are written: the package tensorboard is not installed; "
        "add `tensorboard` to requirements.txt"
    )
