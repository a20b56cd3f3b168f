"""Saves a checkpoint in a background thread while training continues."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack


class BackgroundSaver:
    """One background thread that saves at most one checkpoint at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._after: Callable[[], None] = _nothing

    def start(self, write: Callable[[], None], closing: ExitStack, after: Callable[[], None]) -> None:
        """Start to write in the thread; `finish_pending` calls `after`, in its own thread."""
        self._after = after
        self._writing = self._thread.submit(_write, write, closing)

    @property
    def failed(self) -> bool:
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def finish_pending(self, *, wait: bool) -> None:
        """Raise the thread's error, if any, once it is done; with `wait`, block until then."""
        if self._writing is None or not (wait or self._writing.done()):
            return
        writing, self._writing = self._writing, None
        after, self._after = self._after, _nothing  # it may refer to this object's owner
        writing.result()
        after()

    def close(self) -> None:
        """Wait for the thread without raising its error."""
        self._thread.shutdown()


def _nothing() -> None: ...


def _write(write: Callable[[], None], closing: ExitStack) -> None:
    with closing:
        write()
