"""The Docker runtime keeps the contract on a real engine."""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from detbuild.engine.docker import DockerEngine
from detbuild.runtime.docker import DockerRuntime
from detbuild.runtime.slot_queue import SlotQueue
from tests.contracts import DockerContract, tiny_plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine

PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
time.sleep(float(os.environ["SECONDS"]))
sys.exit(int(os.environ["EXIT_CODE"]))
"""


class TestDocker(DockerContract):
    @pytest.fixture
    def image(self, engine: DockerEngine, base_image: str, tag: str) -> str:
        entrypoint = json.dumps(["python3", "-c", PROGRAM])
        plan = tiny_plan(tag)
        dockerfile = f"FROM {base_image}\nENTRYPOINT {entrypoint}\n"
        return engine.build(replace(plan, base_image=base_image, dockerfile=dockerfile), lambda event: None)

    @pytest.fixture
    def runtime(self, image: str, tmp_path: Path) -> Iterator[DockerRuntime]:
        self.home_id, self.image = uuid.uuid4().hex[:8], image
        with closing(DockerRuntime(DockerEngine(), None, SlotQueue(tmp_path), max_workers=2)) as runtime:
            yield runtime
            runtime.remove(self.home_id, self.experiment_id)
