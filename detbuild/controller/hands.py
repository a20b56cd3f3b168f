"""Runs slow engine calls in parallel, so that no trial waits for the call of another."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.engine.protocol import Engine

AT_ONCE = 8  # more gain nothing: the engine serializes calls itself


class EnginePool:
    """A thread pool; with one worker, calls run in the caller's thread."""

    def __init__(self, engine: Engine, max_workers: int = 1) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(max_workers, thread_name_prefix="engine") if max_workers > 1 else None

    def start(self, container: str) -> Future[None]:
        return self._do(self._engine.start, container)

    def remove(self, container: str) -> Future[None]:
        return self._do(self._engine.remove, container)

    def _do(self, call: Callable[[str], None], container: str) -> Future[None]:
        if self._pool is not None:
            return self._pool.submit(call, container)
        call(container)
        done: Future[None] = Future()
        done.set_result(None)
        return done
