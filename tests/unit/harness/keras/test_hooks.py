from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length
from determined.keras import (
    TFKerasTrialContext,
    callbacks,
)
from determined.keras._hooks import Hooks
from determined.keras._trial import Setting
from tests.unit.harness.keras.driving import Folder, Tiny, building, keras


class Noting(callbacks.Callback):
    calls: list[str]

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append("train begin")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(f"epoch {epoch} begin")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(f"epoch {epoch} end {logs}")

    def on_train_workload_begin(self, total_batches_trained: int, batches_requested: Any, logs: Any) -> None:
        self.calls.append(f"workload of {batches_requested} begins after {total_batches_trained}")

    def on_train_workload_end(self, total_batches_trained: int, logs: Any) -> None:
        self.calls.append(f"workload ends after {total_batches_trained}: {sorted(logs)}")

    def on_test_begin(self, logs: Any = None) -> None:
        self.calls.append("test begin")

    def on_test_end(self, logs: Any = None) -> None:
        self.calls.append(f"test end: {sorted(logs)}")

    def on_checkpoint_end(self, checkpoint_dir: str) -> None:
        assert (Path(checkpoint_dir) / "determined-keras-model-weights.npz").is_file()
        (Path(checkpoint_dir) / "more.txt").write_text("more")
        self.calls.append("checkpoint")

    def on_checkpoint_upload_end(self, uuid: str) -> None:
        self.calls.append("uploaded")

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append("train end")


def test_the_order_of_calls(folder: Folder) -> None:
    calls: list[str] = []

    class Noted(Tiny):
        def keras_callbacks(self) -> Any:
            noting = Noting()
            noting.calls = calls
            return [noting]

    outcome = folder.drive(Noted, max_length=Length("batches", 7), config={"scheduling_unit": 4})
    assert calls == [
        "train begin",
        "workload of 4 begins after 0",
        "epoch 0 begin",
        "workload ends after 4: ['batches', 'epochs', 'loss', 'mae']",
        "workload of 3 begins after 4",
        "epoch 0 end {}",
        "epoch 1 begin",
        "workload ends after 7: ['batches', 'epochs', 'loss', 'mae']",
        "test begin",
        "test end: ['val_loss', 'val_mae']",
        "checkpoint",
        "uploaded",
        "train end",
    ]
    assert (folder.checkpoints / outcome.newest / "more.txt").read_text() == "more"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "keras_callbacks returned a dict"),
        (lambda _: [3], "keras_callbacks returned a int, which is not a Keras callback"),
    ],
)
def test_what_is_not_a_list_of_callbacks_is_refused(folder: Folder, value: Any, says: str) -> None:
    with pytest.raises(InvalidTrialError, match=says):
        folder.drive(building("keras_callbacks", value))


def test_the_early_stopping_of_keras_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    context = TFKerasTrialContext(Setting(hparams={}, config={}))
    Hooks([keras.callbacks.EarlyStopping(monitor="loss")], context, None)
    assert "use determined.keras.callbacks.EarlyStopping" in caplog.text


class Counts(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass


def test_a_hook_that_no_callback_overrides_costs_nothing() -> None:
    context = TFKerasTrialContext(Setting(hparams={}, config={}))
    assert Hooks([keras.callbacks.Callback()], context, None).train_batch_begin is None
    assert Hooks([Counts()], context, None).train_batch_begin is not None


def test_the_state_of_a_callback_of_another_class_is_left_out() -> None:
    context = TFKerasTrialContext(Setting(hparams={}, config={}))
    plateau = callbacks.ReduceLROnPlateau()
    hooks = Hooks([plateau, callbacks.EarlyStopping()], context, None)
    hooks.load_states([("ReduceLROnPlateau", {"wait": 4}), ("ReduceLROnPlateau", {"wait": 5})])
    assert [getattr(one, "wait", 0) for one in hooks.own] == [4, 0]
