from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from detbuild.config.parse import config_from_mapping
from detbuild.errors import EngineError
from detbuild.runtime.docker import DockerRuntime, container_user
from detbuild.runtime.gpus import nowhere
from detbuild.runtime.protocol import Refused, RunKey
from detbuild.runtime.slot_queue import SlotQueue
from tests.contracts import DockerContract
from tests.fakes import INFO, Exit, FakeEngine, Process, run_for_ever
from tests.faults.training import CONFIG, expected, rig, train

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


def lasts(process: Process) -> Exit | Generator[None, None, Exit]:
    """What the program of the contract does."""
    env = process.spec.env
    return run_for_ever(process) if float(env["SECONDS"]) else Exit(int(env["EXIT_CODE"]))


class TestDockerOfTheFake(DockerContract):
    @pytest.fixture
    def runtime(self, tmp_path: Path) -> DockerRuntime:
        engine = FakeEngine(lasts)
        self.image = engine.add_image("program:1")
        return DockerRuntime(engine, None, SlotQueue(tmp_path), nvidia_smi=str)


class Slow(FakeEngine):
    """Takes its time to start a container."""

    def __init__(self) -> None:
        super().__init__(train)
        self.go = threading.Event()
        self.starts = 0

    def start(self, container: str) -> None:
        self.starts += 1
        assert self.go.wait(60)
        super().start(container)


def test_a_start_that_takes_long_is_begun_once_and_holds_nothing_up(tmp_path: Path) -> None:
    engine = Slow()
    tried = rig(tmp_path, engine=engine)
    tried.runtime_of = lambda rig_: rig_.docker(max_workers=2)
    controller = tried.controller()
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


@pytest.mark.parametrize("max_workers", [1, 4])
def test_a_container_that_the_engine_does_not_start_is_refused(tmp_path: Path, max_workers: int) -> None:
    runtime = rig(tmp_path).docker(max_workers=max_workers)
    while (answer := runtime.start(RunKey("none", 1, 1, 0))) is False:
        pass
    assert isinstance(answer, Refused)
    assert "no such container" in str(answer.error)


def test_a_rootless_engine_maps_its_root_to_the_caller() -> None:
    assert container_user(INFO, "1000:1000") == "1000:1000"
    assert container_user(replace(INFO, rootless=True), "1000:1000") == "0:0"


def test_a_config_that_the_host_cannot_run_is_refused_before_a_build(tmp_path: Path) -> None:
    runtime = DockerRuntime(FakeEngine(), None, SlotQueue(tmp_path), nvidia_smi=str)
    gpus = config_from_mapping({**CONFIG, "resources": {"slots_per_trial": 2}})
    with pytest.raises(EngineError, match="requests 2 GPUs, but no GPU was found on this host"):
        runtime.check(gpus, nowhere)
    large = config_from_mapping({**CONFIG, "resources": {"slots_per_trial": 0, "memory": "1t"}})
    (warning,) = runtime.check(large, nowhere)
    assert "resources.memory is 1024 GiB, but the engine's host has 64 GiB" in warning.message
