"""`core_v2` inside a run and before `init`; as an experiment of its own it is in `tests/unit/sdk`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from determined._contract.errors import HarnessError
from determined._contract.records import Checkpoint, Training, Validation, decode
from determined._contract.run_info import EVENTS_FILE, RunInfo
from determined.experimental import core_v2

HARNESS = Path(__file__).parents[4] / "harness"
SCRIPT = """
from determined.experimental import core_v2

core_v2.init(defaults=core_v2.DefaultConfig(name="by hand", hparams={"lr": 0.5}))
print(core_v2.info.trial.hparams)
core_v2.train.report_training_metrics(steps_completed=1, metrics={"loss": 1.0})
core_v2.train.report_validation_metrics(steps_completed=1, metrics={"score": 2})
with core_v2.checkpoint.store_path({"steps_completed": 1}) as (path, _):
    (path / "state").write_text("1")
"""


def run(script: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-c", script],  # without detbuild
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(HARNESS), "DETBUILD_HOME": str(directory), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_in_a_run_it_is_the_core_api_of_that_run_without_the_host(
    make_run: Callable[..., RunInfo], tmp_path: Path
) -> None:
    info = make_run(entrypoint="python3 train.py", hparams={"lr": 0.1})
    ended = run(SCRIPT, tmp_path, DETBUILD_RUN_DIR=info.run_dir)
    assert (ended.returncode, ended.stdout) == (0, "{'lr': 0.1}\n"), ended.stderr
    lines = (Path(info.run_dir) / EVENTS_FILE).read_bytes().splitlines()
    records = [decode(line).record for line in lines]
    assert [type(record) for record in records] == [Training, Validation, Checkpoint]


def test_outside_of_runs_it_needs_the_host(tmp_path: Path) -> None:
    ended = run(SCRIPT, tmp_path)
    assert ended.returncode == 1
    assert "HarnessError: core_v2 outside of a run works on a host, but detbuild is not" in ended.stderr


def test_before_init_its_parts_say_what_to_call() -> None:
    with pytest.raises(HarnessError, match="core_v2 is not in use") as caught:
        _ = core_v2.train
    assert caught.value.hint == "call core_v2.init() first"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = core_v2.trian
