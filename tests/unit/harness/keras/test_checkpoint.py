from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from determined._contract.errors import CheckpointError
from determined._contract.run_info import Length
from determined.keras import (
    TFKerasTrialContext,
    _checkpoint,
    callbacks,
)
from determined.keras._trial import Setting
from tests.unit.harness.keras.driving import KERAS_3, Fixed, Folder, Tiny, keras, records


def test_weights_can_be_read_without_the_harness(folder: Folder) -> None:
    outcome = folder.drive(Tiny)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with np.load(folder.checkpoints / outcome.newest / "determined-keras-model-weights.npz") as weights:
        model.set_weights([weights[name] for name in weights.files])
    assert np.square(model.predict(records(4)[0], verbose=0) - records(4)[1]).mean() == pytest.approx(
        outcome.validations[-1][1]["val_loss"], rel=1e-4
    )


class Changed(Tiny):
    def layers(self) -> list[Any]:
        return [keras.layers.Dense(3), keras.layers.Dense(1)]


def test_a_checkpoint_of_another_model_is_refused(folder: Folder) -> None:
    first = folder.drive(Tiny)
    with pytest.raises(CheckpointError, match=r"the trial has 4 variables, but .* of its checkpoint has 2"):
        folder.drive(Changed, max_length=Length("batches", 20), checkpoints=(first.newest,))


def test_optimizers_of_the_old_kind_keep_their_learning_rate(folder: Folder) -> None:
    kind = keras.optimizers.Adam if KERAS_3 else keras.optimizers.legacy.Adam

    class Lowered(Tiny):
        def build_model(self) -> Any:
            model = super().build_model()
            model.compile(optimizer=kind(0.1), loss="mse")
            return model

        def keras_callbacks(self) -> Any:
            return [callbacks.ReduceLROnPlateau(patience=1, factor=0.5, min_delta=100.0)]

    config = {"min_validation_period": 1}
    whole = folder.drive(Lowered, max_length=Length("batches", 6), config=config)
    half = folder.drive(Lowered, max_length=Length("batches", 3), config=config)
    rest = folder.drive(Lowered, max_length=Length("batches", 6), config=config, checkpoints=(half.newest,))
    assert rest.validations[-1] == whole.validations[-1]


def test_a_checkpoint_that_is_cut_short_is_named(folder: Folder) -> None:
    outcome = folder.drive(Tiny)
    directory = folder.checkpoints / outcome.newest
    (directory / "rng_state.pkl").write_bytes(b"")
    (directory / "determined-keras-model-weights.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"rng_state\.pkl cannot be read"):
        _checkpoint.read_random_states(directory)
    trial = Tiny(TFKerasTrialContext(Setting(hparams={}, config={})))
    trial.build_model()
    with pytest.raises(CheckpointError, match=r"weights\.npz cannot be read"):
        _checkpoint.read_weights(directory, trial.context)


def test_models_are_the_same_only_to_the_bit() -> None:
    def context(bias: float) -> TFKerasTrialContext:
        trial = Fixed(TFKerasTrialContext(Setting(hparams={}, config={})))
        trial.build_model().set_weights([np.full((2, 1), 0.1), np.full(1, bias)])
        return trial.context

    assert _checkpoint.same(context(0.0), context(0.0))
    assert not _checkpoint.same(context(0.0), context(-0.0))
