from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from determined._contract.errors import InvalidTrialError
from determined._contract.records import ExitReason
from determined._contract.run_info import Length
from tests.unit.harness.keras.driving import Fixed, Folder, Tiny, building, fitted, forever, keras, records


def values(history: Any, *names: str) -> list[dict[str, float]]:
    rows = zip(*(history.history[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_the_numbers_are_those_of_fit(folder: Folder) -> None:
    outcome = folder.drive(Fixed, config={"min_validation_period": 5, "scheduling_unit": 5})
    history = fitted(2)
    assert outcome.training == [
        (steps, {"batches": steps, "epochs": steps // 5, **metrics})
        for steps, metrics in zip((5, 10), values(history, "loss", "mae"), strict=True)
    ]
    assert outcome.validations == [
        (steps, {"batches": steps, "epochs": steps // 5, **metrics})
        for steps, metrics in zip((5, 10), values(history, "val_loss", "val_mae"), strict=True)
    ]


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            self.model.stop_training = True


def test_stop_training_ends_the_trial_after_a_checkpoint(folder: Folder) -> None:
    class Stopping(Tiny):
        def keras_callbacks(self) -> Any:
            return [Stop()]

    outcome = folder.drive(Stopping)
    assert (outcome.reason, outcome.checkpoints) == (ExitReason.STOPPED, [3])


def test_lengths_in_records_and_epochs(folder: Folder) -> None:
    outcome = folder.drive(
        Tiny, max_length=Length("epochs", 2), config={"min_validation_period": {"records": 6}}
    )
    assert [steps for steps, _ in outcome.validations] == [3, 6, 9, 10]


def test_a_dataset_without_a_length_has_epochs_by_records_per_epoch(folder: Folder) -> None:
    class Unknown(Tiny):
        def build_training_data_loader(self) -> Any:
            data = tf.data.Dataset.from_tensor_slices(records()).filter(lambda x, _: x[0] < 9)
            return self.context.wrap_dataset(data.batch(2))

    config = {"records_per_epoch": 6}
    assert folder.drive(Unknown, max_length=Length("epochs", 2), config=config).training[-1][0] == 6
    with pytest.raises(InvalidTrialError, match="the training data has no length"):
        folder.drive(Unknown, max_length=Length("epochs", 2))


def test_a_warm_start_takes_the_weights_and_counts_from_zero(folder: Folder) -> None:
    class Still(Tiny):
        def build_model(self) -> Any:
            model = super().build_model()
            model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
            return model

    first = folder.drive(Tiny)
    second = folder.drive(Still, checkpoints=(first.newest,), warm_start=True, trial_id=2)
    assert [steps for steps, _ in second.training] == [10]
    assert second.validations[0][1]["val_loss"] == pytest.approx(first.validations[-1][1]["val_loss"])


def test_validation_data_without_an_end_may_be_limited(folder: Folder) -> None:
    class Limited(Tiny):
        def build_validation_data_loader(self) -> Any:
            self.context.configure_fit(validation_steps=3)
            return forever(self)

    assert folder.drive(Limited).validations
    taken = building("build_validation_data_loader", lambda _: forever(0).take(3))
    assert folder.drive(taken).validations


def test_a_long_validation_of_unknown_length_is_named_once(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    def long(_: Any) -> Any:
        return forever(0).take(150).filter(lambda *_: True)

    trial = building("build_validation_data_loader", long)
    folder.drive(trial, config={"min_validation_period": 5})
    said = [record.getMessage() for record in caplog.records if "validation has taken" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("validation has taken 100 batches, 10 times the training since")


class Unread(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        pytest.fail("it was trained")


def test_a_searcher_metric_that_validation_lacks_is_found_before_training(folder: Folder) -> None:
    class Untrained(Tiny):
        def keras_callbacks(self) -> Any:
            return [Unread()]

    with pytest.raises(InvalidTrialError, match=r"searcher.metric is 'val_accuracy', .*: val_loss, val_mae"):
        folder.drive(Untrained, config={"searcher": {"metric": "val_accuracy"}})


@pytest.mark.parametrize("built", [True, False])
def test_the_numbers_are_equal_with_and_without_preflight(folder: Folder, built: bool) -> None:
    class Random(Tiny):
        def build_model(self) -> Any:
            layers = [keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
            model = self.context.wrap_model(keras.Sequential([*[keras.Input((2,))] * built, *layers]))
            model.compile(optimizer="adam", loss="mse", metrics=["mae"])
            return model

    config = {"searcher": {"metric": "val_loss"}, "min_validation_period": 3, "scheduling_unit": 2}
    found = []
    for on in (True, False):
        outcome = folder.drive(Random, config={**config, "preflight_validation": on})
        found.append((outcome.training, outcome.validations))
    assert found[0] == found[1]
