"""Processes as threads: what they exchange goes over sockets all the same."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from determined._run.processes import SocketGroup


@pytest.fixture
def together(tmp_path: Path) -> Callable[..., list[Any]]:
    """Run a function in as many threads as there are ranks, each with its end of one group."""

    def run(size: int, body: Callable[[SocketGroup], Any]) -> list[Any]:
        def rank(number: int) -> Any:
            group = SocketGroup(number, size, str(tmp_path), join=10)
            try:
                return body(group)
            finally:
                group.close()

        with ThreadPoolExecutor(size) as threads:
            return list(threads.map(rank, range(size)))

    return run
