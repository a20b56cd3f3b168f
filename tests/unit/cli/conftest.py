from __future__ import annotations

from pathlib import Path

import pytest

from detbuild.controller.loop import controller_of
from detbuild.runtime.docker import DockerRuntime
from detbuild.store.experiment_dir import ExperimentFolder
from tests.fakes import FakeEngine
from tests.unit.cli.shells import Shell, train

BASES = (
    "python:3.11-slim-bookworm",
    "detbuild-base:cpu-debian12-py3.11",
    "detbuild-base:cpu-debian13-py3.13",
)
CONFIG = """\
name: tiny
entrypoint: model_def:Tiny
searcher: {name: single, metric: validation_loss, max_length: {batches: 1}}
resources: {slots_per_trial: 0}
"""


@pytest.fixture
def shell(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    """Controllers run in this process, on the engine in memory, and are done when they have been started."""
    engine = FakeEngine(train)
    for base in BASES:
        engine.add_image(base)

    def control(folder: ExperimentFolder, held: int) -> None:
        controller_of(folder, DockerRuntime.of(folder, engine)).run()

    monkeypatch.setattr("detbuild.runtime.docker.lock_directory", lambda: tmp_path)
    monkeypatch.setattr("detbuild.experiment.start_detached", control)
    monkeypatch.setattr("detbuild.controller.requests.start_detached", control)
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    return Shell(tmp_path / "home", engine, environ, capfdbinary.readouterr)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a config and a context, which the commands work in."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "const.yaml").write_text(CONFIG)
    (directory / "model_def.py").write_text("class Tiny(Base): ...\n")
    monkeypatch.chdir(directory)
    return directory
