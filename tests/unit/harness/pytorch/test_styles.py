"""Trials in the styles of all times run as they are: as a test, in full, resumed, and loaded again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from determined._contract.records import ExitReason, Restored
from determined._contract.run_info import Length
from determined.pytorch import PyTorchTrial, load_trial_from_checkpoint_path
from tests.unit.harness.pytorch.driving import Folder
from tests.unit.harness.pytorch.styles import HPARAMS, STYLES

ROOT = Path(__file__).parents[4]
CONFIG = {
    "description": "styles",
    "data": {"path": "/data"},
    "min_validation_period": {"batches": 3},
    "scheduling_unit": 2,
}
SCRIPT = """
import determined as det
from determined.experimental import create
from tests.unit.harness.pytorch import styles

hparams = {{**styles.HPARAMS, "lr": det.Log(-3, -2), "hidden": det.Categorical([4, 8])}}
config = {{"description": "styles", "data": {{"path": "/data"}}, "hyperparameters": hparams}}
for trial in styles.STYLES:
    create(trial, {{**config, "searcher": {{"name": "single", "metric": {metric}, "max_length": 3}}}}, {how})
    print("passed", trial.__name__)
"""


@pytest.mark.parametrize("trial", STYLES, ids=lambda trial: trial.__name__)
def test_it_is_trained_resumed_and_loaded(folder: Folder, trial: type[PyTorchTrial]) -> None:
    frequency = {"EveryStep": 2}.get(trial.__name__, 1)
    config = {**CONFIG, "optimizations": {"aggregation_frequency": frequency}}
    first = folder.drive(trial, config=config, hparams=HPARAMS, max_length=Length("batches", 6))
    assert (first.reason, first.checkpoints) == (ExitReason.COMPLETED, [3, 6])
    assert [steps for steps, _ in first.training] == [2, 3, 4, 6]
    again = folder.drive(
        trial,
        config=config,
        hparams=HPARAMS,
        max_length=Length("batches", 8),
        checkpoints=(first.newest,),
    )
    assert [one.steps_completed for one in again.of(Restored)] == [6]
    assert [steps for steps, _ in again.validations] == [8]
    loaded = load_trial_from_checkpoint_path(folder.checkpoints / again.newest, trial_class=trial)
    assert isinstance(loaded, trial)


@pytest.mark.parametrize("trial", STYLES, ids=lambda trial: trial.__name__)
def test_it_passes_a_test_of_one_batch(folder: Folder, trial: type[PyTorchTrial]) -> None:
    outcome = folder.drive(trial, config=CONFIG, hparams=HPARAMS, test_mode=True)
    assert (outcome.reason, outcome.checkpoints) == (ExitReason.COMPLETED, [1])


def call(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "DETBUILD_HOME": str(place.parent / f"home-of-{place.name}"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'harness'}",
    }
    return subprocess.run(
        [sys.executable, *command], cwd=place, env=environ, capture_output=True, text=True, check=False
    )


def test_create_tests_all_of_them_locally(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "train.py").write_text(
        SCRIPT.format(how="local=True, test=True", metric='"validation_loss"')
    )
    done = call(tmp_path / "here", "train.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("passed") == len(STYLES)


@pytest.mark.parametrize(
    ("style", "how"), [("Classic", ("--local", "--test")), ("Adversarial", ("--local",))]
)
def test_det_experiment_create_runs_them_here(tmp_path: Path, style: str, how: tuple[str, ...]) -> None:
    context = tmp_path / "here" / "model-1.0"
    context.mkdir(parents=True)
    (context / "model_def.py").write_text(f"from tests.unit.harness.pytorch.styles import {style} as Trial\n")
    (context / "const.yaml").write_text(
        "entrypoint: model_def:Trial\n"
        "hyperparameters:\n  global_batch_size: 2\n  hidden: 4\n"
        "  lr: {type: log, base: 10, minval: -3, maxval: -2}\n"
        "searcher: {name: single, metric: validation_loss, max_length: {batches: 4}}\n"
    )
    main = "from detbuild.cli.__main__ import det; det()"
    done = call(
        tmp_path / "here", "-c", main, "experiment", "create", *how, "model-1.0/const.yaml", "model-1.0"
    )
    assert done.returncode == 0, done.stderr[-3000:]
