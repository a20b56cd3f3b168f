"""The example packages are installed as a user would, keep their contracts, and run by their names."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins import EXAMPLES, install_examples

Environ = dict[str, str]
KINDS = ("framework", "searcher", "storage")  # a runtime needs an engine: tests/engine/test_runtime_plugin.py
SCRIPT = """
import determined as det

with det.core.init() as core:
    for length in core.searcher.operations():
        for step in range(1, length.length + 1):
            core.train.report_validation_metrics(step, {"loss": 1.0})
        length.report_completed(1.0)
"""

SAVES = """
import determined as det

with det.core.init() as core:
    with core.checkpoint.store_path({"steps_completed": 1}) as (path, uuid):
        (path / "weights").write_text("1")
    core.train.report_validation_metrics(1, {"loss": 1.0})
"""
TOKEN = "canary-7f3a"


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Environ:
    """With the example packages on the search path, and a home of its own."""
    folder = tmp_path_factory.mktemp("plugins")
    site = install_examples(folder / "site", folder)
    return {**os.environ, "PYTHONPATH": str(site), "DETBUILD_HOME": str(folder / "home")}


def run(environ: Environ, *command: str | Path, cwd: Path | None = None) -> str:
    completed = subprocess.run(
        [sys.executable, *command], env=environ, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_keeps_its_contract(environ: Environ, kind: str) -> None:
    options = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull)
    assert " passed" in run(environ, "-m", "pytest", *options, EXAMPLES / kind)


def test_every_example_is_listed_by_the_doctor(environ: Environ) -> None:
    code = "from detbuild.config.schema import plugins; print(sorted((p.name, p.problem) for p in plugins()))"
    assert run(environ, "-c", code).strip() == "[('cli', ''), ('folder', ''), ('median', '')]"


def test_a_searcher_of_a_package_runs_by_its_name(environ: Environ, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "entrypoint: python3 train.py\n"
        "searcher: {name: median, metric: loss, max_length: {batches: 4}, max_trials: 3}\n"
        "resources: {slots_per_trial: 0}\n",
        encoding="utf-8",
    )
    context = tmp_path / "model"
    context.mkdir()
    (context / "train.py").write_text(SCRIPT, encoding="utf-8")
    assert "3 trials" in run(environ, "-m", "detbuild.cli", "preview-search", config)
    run(environ, "-m", "detbuild.cli", "create", "--local", config, context)
    (row,) = csv.DictReader(run(environ, "-m", "detbuild.cli", "list", "--csv").splitlines())
    assert (row["state"], row["trial_count"]) == ("COMPLETED", "3")


def test_a_storage_of_a_package_keeps_checkpoints_and_its_secret(environ: Environ, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "entrypoint: python3 train.py\n"
        "searcher: {name: single, metric: loss, max_length: {batches: 1}}\n"
        "resources: {slots_per_trial: 0}\n"
        f"checkpoint_storage: {{type: folder, path: {tmp_path}/bucket, token: {TOKEN}}}\n",
        encoding="utf-8",
    )
    context = tmp_path / "model"
    context.mkdir()
    (context / "train.py").write_text(SAVES, encoding="utf-8")
    shown = run(environ, "-m", "detbuild.cli", "config", "check", config)
    said = run(environ, "-m", "detbuild.cli", "create", "--local", config, context)
    (row,) = csv.DictReader(run(environ, "-m", "detbuild.cli", "list", "--csv").splitlines()[:2])
    (checkpoint,) = json.loads(run(environ, "-m", "detbuild.cli", "checkpoint", "list", row["id"], "--json"))
    assert checkpoint["url"] == f"folder://{tmp_path}/bucket/{checkpoint['uuid']}"
    command = ("checkpoint", "download", checkpoint["uuid"], "-o", tmp_path / "back")
    run(environ, "-m", "detbuild.cli", *command)
    assert (tmp_path / "back" / "weights").read_text() == "1"
    folder = Path(row["folder"])
    runs = [path for path in folder.glob("runs/*/*") if path.is_file()]
    assert runs
    assert not [path for path in runs if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in shown + said


def test_a_framework_of_a_package_trains_here(environ: Environ, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "entrypoint: model_def:Line\n"
        "hyperparameters: {lr: 0.1}\n"
        "searcher: {name: single, metric: validation_loss, max_length: {batches: 4}}\n"
        "resources: {slots_per_trial: 0}\n",
        encoding="utf-8",
    )
    context = tmp_path / "model"
    context.mkdir()
    example = (EXAMPLES / "framework" / "test_detbuild_functional.py").read_text(encoding="utf-8")
    model = example.partition("class TestFunctional")[0].replace(
        "from determined.testing", "# from determined.testing"
    )
    (context / "model_def.py").write_text(model, encoding="utf-8")
    run(environ, "-m", "detbuild.cli", "create", "--local", "--test", config, context)
    run(environ, "-m", "detbuild.cli", "create", "--local", config, context)
    row, *_ = csv.DictReader(run(environ, "-m", "detbuild.cli", "list", "--csv").splitlines())
    assert (row["state"], row["steps_completed"], row["checkpoint_count"]) == ("COMPLETED", "4", "1")


def test_the_page_has_the_files_of_the_examples() -> None:
    page = (EXAMPLES.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    shown = dict(
        re.findall(r"^`(examples/plugins/\S+)`:\n\n```\w+\n(.*?\n)```$", page, re.MULTILINE | re.DOTALL)
    )
    files = {
        path.relative_to(EXAMPLES.parents[1]).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(EXAMPLES.rglob("*"))
        if path.suffix in {".py", ".toml"}
    }
    assert shown == files
