"""A real engine, and experiments in a home of the test's own, which are over and gone when it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild import experiment
from detbuild.config.parse import config_from_mapping
from detbuild.controller.requests import request
from detbuild.engine.docker import DockerEngine
from detbuild.events import Event
from detbuild.experiment import SubmitRequest, this_host
from detbuild.store.home import Home
from tests.faults.real import CONFIG, MODEL, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    engine = DockerEngine()
    yield engine
    engine.close()


@pytest.fixture
def home_directory(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def submit(tmp_path: Path, home_directory: Path, engine: DockerEngine) -> Iterator[Callable[..., Trial]]:
    home = Home.open(home_directory)
    host = this_host({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    made: list[Trial] = []

    def make(context: Path = MODEL, **changes: object) -> Trial:
        config = config_from_mapping({**CONFIG, **changes})
        order = SubmitRequest(config=config, text="", context_dir=context)
        submission = experiment.prepare(order, host, home, list[Event]().append, builder=engine)
        number = experiment.submit(submission, host, home, list[Event]().append, engine=engine)
        made.append(Trial(home, home.experiment(number), engine))
        return made[-1]

    yield make
    for trial in made:
        if not trial.state().over:
            request(trial.home, trial.id, "kill")
            trial.end()
    for container in engine.find({"detbuild.home": home.id}):
        engine.remove(container.id)
