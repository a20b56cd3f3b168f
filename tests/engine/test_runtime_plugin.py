"""A runtime of a package keeps the contract, and runs experiments by its name in the home's config.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from detbuild.store.home import Home
from tests.plugins import EXAMPLES, install_examples

pytestmark = pytest.mark.engine

SCRIPT = """
import determined as det

with det.core.init() as core:
    for length in core.searcher.operations():
        core.train.report_validation_metrics(1, {"loss": 1.0})
        length.report_completed(1.0)
"""
CONFIG = """
entrypoint: python3 train.py
searcher: {name: random, metric: loss, max_length: {batches: 1}, max_trials: 2}
resources: {slots_per_trial: 0}
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> dict[str, str]:
    """With the example packages on the search path, and a home whose runtime is one of them."""
    assert base_image
    folder = tmp_path_factory.mktemp("plugins")
    site = install_examples(folder / "site", folder)
    (folder / "home").mkdir()
    (folder / "home" / "config.yaml").write_text("runtime: mine\nruntimes: {mine: {kind: cli}}\n")
    return {**os.environ, "PYTHONPATH": str(site), "DETBUILD_HOME": str(folder / "home")}


def run(environ: dict[str, str], *command: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_example_keeps_its_contract(environ: dict[str, str]) -> None:
    options = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull)
    assert " passed" in run(environ, "-m", "pytest", *options, EXAMPLES / "runtime")


def test_an_experiment_runs_there(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "train.py").write_text(SCRIPT)
    (tmp_path / "config.yaml").write_text(CONFIG)
    cli = ("-m", "detbuild.cli")
    run(environ, *cli, "create", "--follow", tmp_path / "config.yaml", tmp_path / "model")
    (listed,) = json.loads(run(environ, *cli, "list", "--json"))
    folder = Home.open(Path(environ["DETBUILD_HOME"])).folder(listed["id"])
    assert (listed["state"], listed["trial_count"], folder.header().runtime) == ("COMPLETED", 2, "mine")
    name = f"detbuild-{Home.open(Path(environ['DETBUILD_HOME'])).id}-{listed['id']}-"
    client = docker.from_env()
    assert not [one for one in client.containers.list(all=True) if (one.name or "").startswith(name)]
    tag = folder.header().tag
    run(environ, *cli, "delete", str(listed["id"]), "--yes")
    client.images.remove(tag, force=True)
    client.close()


def test_what_the_runtime_refuses_is_said_before_a_build(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "train.py").write_text(SCRIPT)
    (tmp_path / "config.yaml").write_text(CONFIG.replace("slots_per_trial: 0", "slots_per_trial: 1"))
    said = run(environ, "-m", "detbuild.cli", "create", tmp_path / "config.yaml", tmp_path / "model", code=2)
    assert "config.yaml:4" in said
    assert "the runtime cli has no GPUs" in said
