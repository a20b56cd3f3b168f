"""The Keras examples, trained in a container. TensorFlow is installed once for both images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from determined._contract.records import Ended, ExitReason, Validation, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.engine.docker import DockerEngine
    from determined._contract.records import Record

pytestmark = [pytest.mark.engine, pytest.mark.long]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(engine: DockerEngine, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    yield home
    for header in home.glob("experiments/*/experiment.json"):
        engine.remove_image(json.loads(header.read_text())["tag"])


def trained(home: Path, example: str) -> list[Record]:
    directory = ROOT / "examples" / example
    done = subprocess.run(
        [sys.executable, "-m", "detbuild.cli", "create", directory / "const.yaml", directory, "-f"],
        env={**os.environ, "DETBUILD_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    newest = max(home.glob("experiments/*"), key=lambda path: int(path.name))
    lines = (newest / "runs" / "1-0" / "events.jsonl").read_bytes().splitlines(keepends=True)
    return [decode(line).record for line in lines]


@pytest.mark.parametrize(
    ("example", "metric", "at_least"),
    [("digits_keras", "val_accuracy", 0.95), ("iris_keras", "val_categorical_accuracy", 0.9)],
)
def test_an_example_trains_in_a_container(home: Path, example: str, metric: str, at_least: float) -> None:
    records = trained(home, example)
    best = max(record.metrics[metric] for record in records if isinstance(record, Validation))
    assert best > at_least
    assert [record.reason for record in records if isinstance(record, Ended)] == [ExitReason.COMPLETED]
