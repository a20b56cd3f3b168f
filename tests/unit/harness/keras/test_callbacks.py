from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from determined._contract.records import ExitReason
from determined._contract.run_info import Length
from determined.keras import (
    callbacks,
)
from tests.unit.harness.keras.driving import Fixed, Folder, Tiny, keras


def test_early_stopping_acts_on_validations_and_leaves_the_best_weights(folder: Folder) -> None:
    class Diverging(Fixed):
        def build_model(self) -> Any:
            model = super().build_model()
            model.compile(optimizer=keras.optimizers.SGD(0.5), loss="mse")
            return model

        def keras_callbacks(self) -> Any:
            return [callbacks.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)]

    outcome = folder.drive(Diverging, config={"min_validation_period": 1})
    assert outcome.reason is ExitReason.STOPPED
    assert [steps for steps, _ in outcome.validations] == [1, 2, 3]
    assert outcome.checkpoints[-1] == 3
    saved = np.load(folder.checkpoints / outcome.newest / "determined-keras-model-weights.npz")
    first = np.load(folder.checkpoints / outcome.uuids[0] / "determined-keras-model-weights.npz")
    assert [saved[name].tolist() for name in saved.files] == [first[name].tolist() for name in first.files]


def test_the_learning_rate_falls_on_a_plateau_and_stays_low_in_a_resumed_run(folder: Folder) -> None:
    rates: list[float] = []

    class Rate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            rates.append(float(np.asarray(self.model.optimizer.learning_rate)))

    class Flat(Tiny):
        def keras_callbacks(self) -> Any:
            plateau = callbacks.ReduceLROnPlateau(patience=1, factor=0.5, min_delta=100.0)
            return [plateau, Rate()]

    config = {"min_validation_period": 1}
    first = folder.drive(Flat, max_length=Length("batches", 2), config=config)
    folder.drive(Flat, max_length=Length("batches", 4), config=config, checkpoints=(first.newest,))
    assert rates == pytest.approx([0.001, 0.001, 0.0005, 0.00025])


def test_tensorboard_files_go_into_the_run_s_folder_where_the_package_is(folder: Folder) -> None:

    class Shown(Tiny):
        def keras_callbacks(self) -> Any:
            return [callbacks.TensorBoard(log_dir="elsewhere")]

    expected = {"train", "validation"} if importlib.util.find_spec("tensorboard") else set()
    assert folder.drive(Shown).reason is ExitReason.COMPLETED
    board = folder.path / "run-0" / "tensorboard"
    assert {path.parent.name for path in board.rglob("events*")} == expected
