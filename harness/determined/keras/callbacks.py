"""Callbacks of a TFKerasTrial: Keras' own, with hooks for what happens outside of epochs.

Keras' EarlyStopping and the like act at the ends of epochs, on metrics that a trial does not have there:
validations have a schedule of their own. Those of this module act on validations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from determined.keras._tf import keras

if TYPE_CHECKING:
    from pathlib import Path

    from determined.keras._types import Untyped

Logs = dict[str, object]


class Callback(keras.callbacks.Callback):  # type: ignore[misc]  # TensorFlow is untyped
    """Keras' hooks and these. `on_test_end` is given validation metrics under their `val_` names."""

    def on_train_workload_begin(
        self, total_batches_trained: int, batches_requested: int | None, logs: Logs
    ) -> None:
        """Training begins, or goes on after a report, a validation or a checkpoint."""

    def on_train_workload_end(self, total_batches_trained: int, logs: Logs) -> None:
        """Training metrics were reported."""

    def on_checkpoint_end(self, checkpoint_dir: str) -> None:
        """The checkpoint's files are written; more may be added."""

    def on_checkpoint_write_end(self, checkpoint_dir: Path) -> None:
        """The same, with a path."""

    def on_checkpoint_upload_end(self, uuid: str) -> None:
        """The checkpoint is complete and can be found."""

    def get_state(self) -> Untyped:
        """What checkpoints keep of this callback."""
        return None

    def load_state(self, state: Untyped) -> None:
        """Take over what `get_state` gave."""


class EarlyStopping(keras.callbacks.EarlyStopping, Callback):  # type: ignore[misc]
    """Keras' EarlyStopping, with validations for epochs. The best weights are back before the checkpoint."""

    _validations = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Nothing: there are no validation metrics here."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        super().on_epoch_end(self._validations, dict(logs or {}))
        self._validations += 1
        if self.model.stop_training and self.restore_best_weights and self.best_weights is not None:
            self.model.set_weights(self.best_weights)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Nothing: what training has become is in the checkpoint already."""

    def get_state(self) -> Untyped:
        return _attributes(
            self, "_validations", "wait", "best", "best_epoch", "best_weights", "stopped_epoch"
        )

    def load_state(self, state: Untyped) -> None:
        self.__dict__.update(state)


class ReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau, Callback):  # type: ignore[misc]
    """Keras' ReduceLROnPlateau, with validations for epochs."""

    _validations = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Nothing: there are no validation metrics here."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        super().on_epoch_end(self._validations, dict(logs or {}))
        self._validations += 1

    def get_state(self) -> Untyped:
        return _attributes(self, "_validations", "wait", "best", "cooldown_counter")

    def load_state(self, state: Untyped) -> None:
        self.__dict__.update(state)


class TensorBoard(keras.callbacks.TensorBoard, Callback):  # type: ignore[misc]
    """Keras' TensorBoard, writing into the run's own folder at each report and validation."""

    _batches = 0

    def set_log_dir(self, directory: Path) -> None:
        self.log_dir = str(directory)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Nothing: metrics come with reports and validations."""

    def on_train_workload_end(self, total_batches_trained: int, logs: Logs) -> None:
        self._batches = total_batches_trained
        super().on_epoch_end(total_batches_trained, dict(logs))

    def on_test_end(self, logs: Logs | None = None) -> None:
        super().on_test_end(logs)
        super().on_epoch_end(self._batches, dict(logs or {}))


def _attributes(callback: Callback, *names: str) -> dict[str, object]:
    return {name: getattr(callback, name) for name in names if hasattr(callback, name)}
