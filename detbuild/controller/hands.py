"""Calls of the engine that take long, several at a time, so that no trial waits for another one's."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.engine.protocol import Engine

AT_ONCE = 8  # more of them gain nothing: the engine itself takes turns


class EnginePool:
    """A single pair does one thing after the other, and is done with it before the call returns."""

    def __init__(self, engine: Engine, pairs: int = 1) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(pairs, thread_name_prefix="engine") if pairs > 1 else None

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
