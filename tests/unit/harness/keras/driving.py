"""Runs Keras trials in this process through the real run folder, and gives back what they recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from determined._contract.records import Checkpoint, ExitReason, Record, Training, Validation, decode
from determined._contract.run_info import Length, RunInfo
from determined._run.run import ChiefRun
from determined.keras import TFKerasTrial, TFKerasTrialContext
from determined.keras._runner import run_trial

if TYPE_CHECKING:
    from collections.abc import Mapping

keras = tf.keras
KERAS_3 = hasattr(keras, "ops")


def records(count: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Record i is (i, i + 0.5), and what is to be learnt of it is i / 10."""
    first = np.arange(count, dtype="float32")
    return np.stack([first, first + 0.5], axis=1), (first / 10)[:, None]


class Tiny(TFKerasTrial):
    """A line through ten records, two to a batch: five batches an epoch. Subclasses change a part."""

    def __init__(self, context: TFKerasTrialContext) -> None:
        self.context = context

    def layers(self) -> list[Any]:
        return [keras.layers.Dense(1)]

    def build_model(self) -> Any:
        model = keras.Sequential([keras.Input((2,)), *self.layers()])
        model = self.context.wrap_model(model)
        model.compile(optimizer=keras.optimizers.SGD(0.001), loss="mse", metrics=["mae"])
        return model

    def build_training_data_loader(self) -> Any:
        return records()

    def build_validation_data_loader(self) -> Any:
        return records(4)


class Fixed(Tiny):
    """The same weights every time, and records in their order."""

    def build_model(self) -> Any:
        self.context.configure_fit(shuffle=False)
        model = super().build_model()
        model.set_weights([np.full((2, 1), 0.1), np.zeros(1)])
        return model


def fitted(epochs: int, **options: Any) -> Any:
    """The same by `model.fit`."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.full((2, 1), 0.1), np.zeros(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.001), loss="mse", metrics=["mae"])
    return model.fit(
        *records(),
        batch_size=2,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        validation_data=records(4),
        **options,
    )


def building(method: str, value: Any) -> type[TFKerasTrial]:
    return type("Bad", (Tiny,), {method: lambda self: value(self) if callable(value) else value})


def forever(_: Any) -> Any:
    return tf.data.Dataset.from_tensor_slices(records(4)).batch(2).repeat()


@dataclass(frozen=True)
class Outcome:
    reason: ExitReason
    records: list[Record]

    def of(self, kind: type) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]

    @property
    def training(self) -> list[tuple[int, Mapping[str, Any]]]:
        return [(record.steps_completed, record.metrics) for record in self.of(Training)]

    @property
    def validations(self) -> list[tuple[int, Mapping[str, Any]]]:
        return [(record.steps_completed, record.metrics) for record in self.of(Validation)]

    @property
    def checkpoints(self) -> list[int]:
        return [record.steps_completed for record in self.of(Checkpoint)]

    @property
    def uuids(self) -> list[str]:
        return [record.uuid for record in self.of(Checkpoint)]

    @property
    def newest(self) -> str:
        return self.uuids[-1]


class Folder:
    """One experiment's place in a temporary directory; every call of `drive` is a run of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._runs = 0
        self.run: ChiefRun | None = None
        (path / "context").mkdir()

    def info(self, **fields: Any) -> RunInfo:
        run_dir = self.path / f"run-{self._runs}"
        run_dir.mkdir()
        defaults: dict[str, Any] = {
            "experiment_id": 1,
            "trial_id": 1,
            "run": self._runs,
            "trial_seed": 7,
            "slots": 0,
            "entrypoint": "model_def:Trial",
            "run_dir": str(run_dir),
            "context_dir": str(self.path / "context"),
            "context_name": "context",
            "checkpoint_dir": str(self.checkpoints),
            "max_length": Length("batches", 10),
            "hparams": {"global_batch_size": 2},
        }
        self._runs += 1
        return RunInfo(**{**defaults, **fields})

    def drive(self, trial_class: type[TFKerasTrial], **fields: Any) -> Outcome:
        info = self.info(**fields)
        self.run = ChiefRun(info)
        reason = run_trial(trial_class, self.run)
        lines = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines(keepends=True)
        return Outcome(reason, [decode(line).record for line in lines])
