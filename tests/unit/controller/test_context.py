from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from detbuild.controller.context import EnginePool
from detbuild.errors import EngineError
from tests.fakes import FakeEngine
from tests.faults.training import expected, rig, train

if TYPE_CHECKING:
    from pathlib import Path


class Slow(FakeEngine):
    """Takes its time to start a container."""

    def __init__(self) -> None:
        super().__init__(train)
        self.go = threading.Event()
        self.starts = 0

    def start(self, container: str) -> None:
        self.starts += 1
        assert self.go.wait(10)
        super().start(container)


def test_a_start_that_takes_long_is_begun_once_and_holds_nothing_up(tmp_path: Path) -> None:
    engine = Slow()
    tried = rig(tmp_path, engine=engine)
    controller = tried.controller()
    controller.context.engine_pool = EnginePool(engine, 2)
    for _ in range(5):
        controller.step()
        tried.clock.wait(1.1)
    assert engine.starts == 1
    engine.go.set()
    while not controller.context.state.over:
        controller.step()
        tried.clock.wait(1.1)
    assert engine.starts == 1
    assert tried.reports() == expected()


@pytest.mark.parametrize("pairs", [1, 4])
def test_what_the_engine_refuses_is_known_to_who_asked(pairs: int) -> None:
    engine = FakeEngine()
    with pytest.raises(EngineError, match="no such container"):
        EnginePool(engine, pairs).start("nobody").result()
