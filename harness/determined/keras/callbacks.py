"""Callbacks of a TFKerasTrial: Keras' callbacks with hooks for workloads and checkpoints.

Keras' own EarlyStopping and ReduceLROnPlateau act at the end of an epoch, where a trial has no validation
metrics: validations have their own schedule. Those of this module act on validations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from determined.keras._tf import keras

if TYPE_CHECKING:
    from pathlib import Path

    from determined.keras._tf import Untyped

Logs = dict[str, object]


class Callback(keras.callbacks.Callback):  # type: ignore[misc]  # TensorFlow is untyped
    """Keras' hooks and these. `on_test_end` receives validation metrics with `val_` names."""

    def on_train_workload_begin(
        self, total_batches_trained: int, batches_requested: int | None, logs: Logs
    ) -> None:
        """Called when training starts, or continues after a report, a validation or a checkpoint."""

    def on_train_workload_end(self, total_batches_trained: int, logs: Logs) -> None:
        """Called after training metrics were reported."""

    def on_checkpoint_end(self, checkpoint_dir: str) -> None:
        """Called after the checkpoint's files are written; may add files."""

    def on_checkpoint_write_end(self, checkpoint_dir: Path) -> None:
        """Called like `on_checkpoint_end`, with a path."""

    def on_checkpoint_upload_end(self, uuid: str) -> None:
        """Called after the checkpoint is complete and visible."""

    def get_state(self) -> Untyped:
        """Return the state of this callback for checkpoints."""
        return None

    def load_state(self, state: Untyped) -> None:
        """Restore the state that `get_state` returned."""


class EarlyStopping(keras.callbacks.EarlyStopping, Callback):  # type: ignore[misc]
    """Keras' EarlyStopping per validation. The best weights are restored before the checkpoint."""

    _validations = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Do nothing: there are no validation metrics here."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        super().on_epoch_end(self._validations, dict(logs or {}))
        self._validations += 1
        if self.model.stop_training and self.restore_best_weights and self.best_weights is not None:
            self.model.set_weights(self.best_weights)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Do nothing: the last checkpoint is already written."""

    def get_state(self) -> Untyped:
        return _attributes(
            self, "_validations", "wait", "best", "best_epoch", "best_weights", "stopped_epoch"
        )

    def load_state(self, state: Untyped) -> None:
        self.__dict__.update(state)


class ReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau, Callback):  # type: ignore[misc]
    """Keras' ReduceLROnPlateau per validation."""

    _validations = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Do nothing: there are no validation metrics here."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        super().on_epoch_end(self._validations, dict(logs or {}))
        self._validations += 1

    def get_state(self) -> Untyped:
        return _attributes(self, "_validations", "wait", "best", "cooldown_counter")

    def load_state(self, state: Untyped) -> None:
        self.__dict__.update(state)


class TensorBoard(keras.callbacks.TensorBoard, Callback):  # type: ignore[misc]
    """Keras' TensorBoard, writing to the run's directory at each report and validation."""

    _batches = 0

    def set_log_dir(self, directory: Path) -> None:
        self.log_dir = str(directory)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Do nothing: metrics come with reports and validations."""

    def on_train_workload_end(self, total_batches_trained: int, logs: Logs) -> None:
        self._batches = total_batches_trained
        super().on_epoch_end(total_batches_trained, dict(logs))

    def on_test_end(self, logs: Logs | None = None) -> None:
        super().on_test_end(logs)
        super().on_epoch_end(self._batches, dict(logs or {}))


def _attributes(callback: Callback, *names: str) -> dict[str, object]:
    return {name: getattr(callback, name) for name in names if hasattr(callback, name)}
