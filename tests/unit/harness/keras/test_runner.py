"""A run in test mode, and runs on two devices, which train as one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from determined._contract.records import ExitReason, Restored
from tests.unit.harness.keras.driving import Folder, Tiny


def test_test_mode_trains_validates_saves_and_restores_one_batch(folder: Folder) -> None:
    outcome = folder.drive(Tiny, test_mode=True)
    assert outcome.reason is ExitReason.COMPLETED
    assert [steps for steps, _ in outcome.training] == [1]
    assert outcome.of(Restored) == [Restored(outcome.newest, 1)]


ROOT = Path(__file__).parents[4]
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
import tensorflow as tf
from determined._contract.run_info import Length
from tests.unit.harness.keras.driving import Folder, Tiny, keras, records

class Split(Tiny):
    kind = "arrays"
    def build_model(self):
        model = self.context.wrap_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "relu")]))
        model.set_weights([np.full((2, 1), 0.1), np.zeros(1)])
        model.compile(optimizer=keras.optimizers.SGD(0.001), loss="mse", metrics=["mae"])
        return model
    def build_training_data_loader(self):
        self.context.configure_fit(shuffle=False)
        if self.kind == "arrays":
            return records(10)
        data = tf.data.Dataset.from_tensor_slices(records(12))
        return self.context.wrap_dataset(data.batch(self.context.get_per_slot_batch_size()))

def weights(folder, outcome):
    with np.load(folder.checkpoints / outcome.newest / "determined-keras-model-weights.npz") as file:
        return [file[name].ravel().tolist() for name in file.files]

found = {}
for kind in ("arrays", "dataset"):
    for slots in (2, 0):
        path = Path(sys.argv[1]) / f"{kind}{slots}"
        path.mkdir()
        folder = Folder(path)
        trial = type("Trial", (Split,), {"kind": kind})
        fields = {"slots": slots, "hparams": {"global_batch_size": 4}, "config": {"scheduling_unit": 3}}
        outcome = folder.drive(trial, max_length=Length("batches", 6), **fields)
        half = folder.drive(trial, max_length=Length("batches", 4), **fields)
        resumed = folder.drive(trial, max_length=Length("batches", 6), checkpoints=(half.newest,), **fields)
        found[f"{kind} {slots}"] = {
            "training": [metrics for _, metrics in outcome.training],
            "validation": [metrics for _, metrics in outcome.validations],
            "weights": weights(folder, outcome),
            "resumed": weights(folder, resumed),
        }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path_factory.mktemp("devices")],
        cwd=ROOT,
        env={
            "PYTHONPATH": f"{ROOT}:{ROOT / 'harness'}",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_two_devices_train_as_one_with_the_global_batch(found: dict[str, Any], kind: str) -> None:
    two, one = found[f"{kind} 2"], found[f"{kind} 0"]
    for part in ("training", "validation"):
        for ours, theirs in zip(two[part], one[part], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
    for ours, theirs in zip(two["weights"], one["weights"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_two_devices_go_on_exactly(found: dict[str, Any], kind: str) -> None:
    assert found[f"{kind} 2"]["resumed"] == found[f"{kind} 2"]["weights"]
