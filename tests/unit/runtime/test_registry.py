from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from detbuild.config.host import host_config
from detbuild.errors import ConfigError
from detbuild.runtime.docker import DockerRuntime
from detbuild.runtime.registry import runtime_for, runtime_of
from detbuild.store.home import Home
from tests.fakes import INFO, FakeEngine
from tests.faults.training import submit
from tests.plugins import write_package

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = """
    from typing import Literal

    from detbuild.config.host import RuntimeConfig

    class Config(RuntimeConfig):
        kind: Literal["elsewhere"] = "elsewhere"
        port: int

    def open(config):
        return f"a runtime at {config.port}"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """With a runtime of a package."""
    write_package(tmp_path / "site", "detbuild.runtimes", "elsewhere", PACKAGE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    home = Home.open(tmp_path / "home")
    (home.path / "config.yaml").write_text("runtime: lab\nruntimes: {lab: {kind: elsewhere, port: 7}}\n")
    return home


def test_without_a_config_experiments_run_in_docker(tmp_path: Path) -> None:
    runtime = runtime_for(host_config(tmp_path), FakeEngine(), INFO)
    assert isinstance(runtime, DockerRuntime)
    folder = submit(Home.open(tmp_path), "")
    assert isinstance(runtime_of(folder, FakeEngine()), DockerRuntime)


def test_a_runtime_of_a_package_is_opened_with_its_section(home: Home) -> None:
    assert runtime_for(host_config(home.path), FakeEngine(), INFO) == "a runtime at 7"


def test_an_experiment_keeps_the_runtime_that_it_was_submitted_to(home: Home) -> None:
    folder = submit(home, "")
    assert isinstance(runtime_of(folder, FakeEngine()), DockerRuntime)
    folder.write(replace(folder.header(), runtime="lab"), {})
    assert runtime_of(folder, FakeEngine()) == "a runtime at 7"
    (home.path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="runs on the runtime lab, which") as refused:
        runtime_of(folder, FakeEngine())
    assert "`detbuild resume`" in refused.value.hint


def test_docker_is_loaded_without_the_config_of_the_home(home: Home) -> None:
    (home.path / "config.yaml").write_text("runtime: [")
    assert isinstance(runtime_of(submit(home, ""), FakeEngine()), DockerRuntime)
