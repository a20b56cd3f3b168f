from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import determined.keras
from determined._contract.errors import InvalidTrialError
from determined._contract.records import ExitReason
from determined._contract.run_info import Length
from determined._trial.frameworks import runner_of
from determined.keras import (
    TFKerasTrial,
    TFKerasTrialContext,
)
from determined.keras._runner import run_trial
from determined.keras._trial import Setting
from tests.unit.harness.keras.driving import KERAS_3, Fixed, Folder, Tiny, building, keras, records


def uncompiled(trial: Tiny) -> Any:
    return trial.context.wrap_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))


def unwrapped(_: Tiny) -> Any:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    return model


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        (building("build_model", 3), "build_model returned a int, not a Keras model"),
        (building("build_model", uncompiled), "build_model returned a model that is not compiled"),
        (building("build_model", unwrapped), "build_model returned a model that was not wrapped"),
        (building("build_training_data_loader", []), "build_training_data_loader returned a builtins.list"),
        (
            building("build_validation_data_loader", None),
            "build_validation_data_loader returned a builtins.None",
        ),
        (
            building("build_training_data_loader", (np.zeros((3, 2)), np.zeros((2, 1)))),
            "the arrays of the training data differ in length: 2, 3",
        ),
        (building("build_training_data_loader", (np.zeros((0, 2)), np.zeros((0, 1)))), "has 0 records"),
        (type("Bad", (TFKerasTrial,), {}), "Bad does not define build_model and build_training_data_loader"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_plain_words(
    folder: Folder, trial: type[TFKerasTrial], says: str
) -> None:
    with pytest.raises(InvalidTrialError, match=says):
        folder.drive(trial)


def test_batch_sizes_have_to_be_set_for_arrays(folder: Folder) -> None:
    with pytest.raises(InvalidTrialError, match="global_batch_size is not set"):
        folder.drive(Tiny, hparams={})


def test_a_context_can_be_made_by_hand() -> None:
    context = TFKerasTrialContext.from_config({"hyperparameters": {"global_batch_size": 8}})
    assert Tiny(context).build_model() is context.model
    with pytest.raises(InvalidTrialError, match="wrap_model was called for two models"):
        Tiny(context).build_model()


def test_each_device_gets_its_part_of_the_global_batch() -> None:
    def context(size: int) -> TFKerasTrialContext:
        return TFKerasTrialContext(Setting(hparams={"global_batch_size": size}, config={}, replicas=4))

    assert context(64).get_per_slot_batch_size() == 16
    assert context(64).get_global_batch_size() == context(66).get_global_batch_size() == 64
    with pytest.raises(InvalidTrialError, match="global_batch_size is 3, but the trial has 4 slots"):
        context(3).get_per_slot_batch_size()


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 cannot accumulate gradients")
def test_gradients_are_aggregated_over_batches(folder: Folder) -> None:
    config = {"optimizations": {"aggregation_frequency": 5}, "scheduling_unit": 1}
    outcome = folder.drive(Fixed, max_length=Length("batches", 5), config=config)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.full((2, 1), 0.1), np.zeros(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.001), loss="mse")
    model.fit(*records(), batch_size=10, verbose=0)
    with np.load(folder.checkpoints / outcome.newest / "determined-keras-model-weights.npz") as file:
        for name, expected in zip(file.files, model.get_weights(), strict=True):
            np.testing.assert_allclose(file[name], expected, rtol=1e-5)


@pytest.mark.skipif(KERAS_3, reason="Keras 3 can")
def test_keras_2_cannot_aggregate_gradients_and_says_so(folder: Folder) -> None:
    with pytest.raises(InvalidTrialError, match="aggregation_frequency needs Keras 3"):
        folder.drive(Tiny, config={"optimizations": {"aggregation_frequency": 2}})


@pytest.mark.parametrize("counted", [True, False])
def test_the_data_layer_of_old_shuffles_all_records_anew_in_each_epoch(folder: Folder, counted: bool) -> None:
    seen: list[list[float]] = []

    class Layered(Tiny):
        def build_training_data_loader(self) -> Any:
            @self.context.experimental.cache_train_dataset("ten", "v1", shuffle=True)
            def make() -> Any:
                made = tf.data.Dataset.from_tensor_slices(records())
                return made if counted else made.filter(lambda x, y: True)

            for _ in range(2):
                data = make()
                seen.append([float(x[0]) for x, _ in data])
            return make().batch(2)

        def build_validation_data_loader(self) -> Any:
            make = self.context.experimental.cache_validation_dataset("four", "v1")(
                lambda: tf.data.Dataset.from_tensor_slices(records(4))
            )
            return make().batch(2)

    outcome = folder.drive(Layered)
    assert outcome.reason is ExitReason.COMPLETED
    assert all(sorted(order) == list(map(float, range(10))) for order in seen)
    assert seen[0] != seen[1] or seen[0] != sorted(seen[0])


def test_the_data_layer_of_old_wants_data_sets(folder: Folder) -> None:
    class Wrong(Tiny):
        def build_training_data_loader(self) -> Any:
            return self.context.experimental.cache_train_dataset("ten", "v1")(records)()

    with pytest.raises(InvalidTrialError, match=r"records returned a tuple, not a tf\.data\.Dataset"):
        folder.drive(Wrong)


@pytest.mark.parametrize("name", determined.keras.__all__)
def test_each_name_of_the_package_is_found(name: str) -> None:
    assert getattr(determined.keras, name) is not None


def test_the_runner_is_where_the_trial_says() -> None:
    assert runner_of(TFKerasTrial) is run_trial
