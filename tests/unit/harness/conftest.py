"""A run of one trial in tmp_path, as detbuild would describe it, and a disk that is soon full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from determined._contract.run_info import RunInfo
from tests.disks import mounted_disk

MakeRun = Callable[..., RunInfo]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(**changes: object) -> RunInfo:
        folders = {name: tmp_path / name for name in ("run", "context", "checkpoints")}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        values: dict[str, object] = {
            "experiment_id": 3,
            "trial_id": 7,
            "run": 0,
            "trial_seed": 42,
            "slots": 0,
            "entrypoint": "model_def:Toy",
            "run_dir": str(folders["run"]),
            "context_dir": str(folders["context"]),
            "context_name": "my-model.v2",
            "checkpoint_dir": str(folders["checkpoints"]),
        }
        info = RunInfo(**{**values, **changes})
        info.save(folders["run"])
        return info

    return make


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """One megabyte."""
    with mounted_disk(tmp_path / "disk", "1m") as place:
        yield place
