"""Callbacks for scripts that call `model.fit`. They need the Core API, but not TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import keras

from determined._contract.errors import CheckpointError, InvalidTrialError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from determined.keras._tf import Untyped

_LOG = logging.getLogger(__name__)
_WEIGHTS_FILE = "model.weights.h5"
_STATE_FILE = "callback_state.json"


class _Train(Protocol):
    def report_training_metrics(self, steps_completed: int, metrics: Mapping[str, object]) -> None: ...
    def report_validation_metrics(self, steps_completed: int, metrics: Mapping[str, object]) -> None: ...
    def report_progress(self, progress: float) -> None: ...
    def get_tensorboard_path(self) -> Path: ...


class _Checkpoint(Protocol):
    def store_path(self, metadata: dict[str, object]) -> AbstractContextManager[tuple[Path, str]]: ...
    def restore_path(self, storage_id: str) -> AbstractContextManager[Path]: ...


class _Preempt(Protocol):
    def should_preempt(self) -> bool: ...


class _Distributed(Protocol):
    @property
    def rank(self) -> int: ...


class _CoreContext(Protocol):
    """The part of the Core API's context that the callbacks use."""

    @property
    def train(self) -> _Train: ...
    @property
    def checkpoint(self) -> _Checkpoint: ...
    @property
    def preempt(self) -> _Preempt: ...
    @property
    def distributed(self) -> _Distributed: ...


class DeterminedCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Callback for `model.fit` that reports metrics, stores checkpoints, and resumes training.

    Args:
        core_context: from `determined.core.init()`.
        checkpoint: UUID of the checkpoint to continue from.
        continue_id: a checkpoint with the same ID continues at its next epoch; with another ID only its
            weights are loaded, and training starts from epoch 0.
        train_metrics_report_period: "epoch", or a number of batches.
        checkpoint_epochs: epochs between two checkpoints; 0 stores only the last one.
    """

    def __init__(
        self,
        core_context: _CoreContext,
        checkpoint: str | None = None,
        continue_id: str = "",
        *,
        train_metrics_report_period: int | str = "epoch",
        checkpoint_epochs: int = 1,
    ) -> None:
        super().__init__()
        if train_metrics_report_period != "epoch" and not isinstance(train_metrics_report_period, int):
            raise InvalidTrialError(
                f"train_metrics_report_period is {train_metrics_report_period!r}",
                hint='make it "epoch" or a number of batches',
            )
        self._core, self._checkpoint, self._continue_id = core_context, checkpoint, continue_id
        self._report_every = train_metrics_report_period
        self._checkpoint_epochs = checkpoint_epochs
        self._epochs = self._steps = 0  # completed
        self._saved: int | None = None  # epochs at the newest checkpoint

    def on_train_begin(self, logs: Untyped = None) -> None:  # noqa: ARG002  (Keras' own signature)
        if self._checkpoint is not None:
            with self._core.checkpoint.restore_path(self._checkpoint) as path:
                self._restore(Path(path))

    def on_train_batch_end(self, batch: int, logs: Untyped = None) -> None:  # noqa: ARG002  (as above)
        self._steps += 1
        if isinstance(self._report_every, int) and self._steps % self._report_every == 0:
            self._report_training(dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Untyped = None) -> None:
        self._epochs = epoch + 1
        found = dict(logs or {})
        validation = {name: value for name, value in found.items() if name.startswith("val_")}
        if self._report_every == "epoch":
            self._report_training({name: value for name, value in found.items() if name not in validation})
        if validation and self._is_chief:
            self._core.train.report_validation_metrics(self._steps, self._counted(validation))
        if self._is_chief and self.params.get("epochs"):
            self._core.train.report_progress(self._epochs / self.params["epochs"])
        if self._checkpoint_epochs and self._epochs % self._checkpoint_epochs == 0:
            self._save()
        if self._core.preempt.should_preempt():
            self.model.stop_training = True

    def on_train_end(self, logs: Untyped = None) -> None:  # noqa: ARG002  (as above)
        if self._saved != self._epochs:
            self._save()

    def save_model(self, model: Untyped, path: Path, distributed: _Distributed) -> None:  # noqa: ARG002  (may be overridden)
        """Write a model to the directory of a checkpoint."""
        model.save_weights(str(path / _WEIGHTS_FILE))

    def load_model(self, model: Untyped, path: Path, distributed: _Distributed) -> None:  # noqa: ARG002  (as above)
        """Load the model that `save_model` wrote."""
        if model.optimizer is not None and model.built:
            model.optimizer.build(model.trainable_variables)
        model.load_weights(str(path / _WEIGHTS_FILE))

    @property
    def _is_chief(self) -> bool:
        return self._core.distributed.rank == 0

    def _counted(self, metrics: dict[str, object]) -> dict[str, object]:
        numbers = {name: _number(value) for name, value in metrics.items()}
        return {"batches": self._steps, "epochs": self._epochs, **numbers}

    def _report_training(self, metrics: dict[str, object]) -> None:
        if self._is_chief:
            self._core.train.report_training_metrics(self._steps, self._counted(metrics))

    def _save(self) -> None:
        self._saved = self._epochs
        if not self._is_chief:
            return
        with self._core.checkpoint.store_path({"steps_completed": self._steps}) as (path, _):
            self.save_model(self.model, Path(path), self._core.distributed)
            state = {"continue_id": self._continue_id, "epochs": self._epochs, "steps": self._steps}
            (Path(path) / _STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    def _restore(self, path: Path) -> None:
        self.load_model(self.model, path, self._core.distributed)
        try:
            state = json.loads((path / _STATE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {self._checkpoint} has no {_STATE_FILE}",
                hint="use a checkpoint that a DeterminedCallback stored",
            ) from error
        if state["continue_id"] == self._continue_id:
            self._epochs = self._saved = state["epochs"]
            self._steps = state["steps"]
            _begin_at(self.model, self._epochs)


class TensorBoard(keras.callbacks.TensorBoard):  # type: ignore[misc]  # Keras is untyped
    """Keras' TensorBoard, writing to the run's directory; without its package it does nothing."""

    def __new__(cls, core_context: _CoreContext, **options: Untyped) -> Untyped:  # noqa: ARG004  (as __init__)
        if importlib.util.find_spec("tensorboard") is None:
            _LOG.warning(
                "no TensorBoard files are written: the package tensorboard is not installed; "
                "add `tensorboard` to requirements.txt"
            )
            return keras.callbacks.Callback()
        return super().__new__(cls)

    def __init__(self, core_context: _CoreContext, **options: Untyped) -> None:
        options["log_dir"] = str(core_context.train.get_tensorboard_path())
        super().__init__(**options)


class _InitialEpoch:
    """Sets the initial epoch in Keras 2, in the same way as its own BackupAndRestore."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def maybe_load_initial_counters_from_ckpt(self, *_args: object, **_keywords: object) -> tuple[int, int]:
        return self._epoch, 0


def _begin_at(model: Untyped, epoch: int) -> None:
    """Set the initial epoch of the current `fit`; Keras has no public API for it."""
    if hasattr(model, "_maybe_load_initial_counters_from_ckpt"):
        model._training_state = _InitialEpoch(epoch)  # noqa: SLF001
    else:
        model._initial_epoch = epoch  # noqa: SLF001


def _number(value: Untyped) -> object:
    return value.item() if hasattr(value, "item") else value
