"""A script that calls model.fit itself, with the Core API reduced to what the callback needs."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import determined as det
from determined._contract.errors import InvalidTrialError
from determined._contract.records import Checkpoint, Training, Validation, decode
from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo
from determined._run.run import ChiefRun
from determined.keras import DeterminedCallback, TensorBoard
from tests.unit.harness.keras.driving import Folder, keras, records

if TYPE_CHECKING:
    from collections.abc import Iterator


class Core:
    """The Core API on a run's own folder."""

    def __init__(self, folder: Folder, rank: int = 0) -> None:
        self.info = folder.info()
        self.run = ChiefRun(self.info)
        self.train = self.checkpoint = self.preempt = self
        self.distributed = SimpleNamespace(rank=rank)
        self.leave = False

    def report_training_metrics(self, steps_completed: int, metrics: Any) -> None:
        self.run.report_training(steps_completed, metrics)

    def report_validation_metrics(self, steps_completed: int, metrics: Any) -> None:
        self.run.report_validation(steps_completed, metrics)

    def report_progress(self, progress: float) -> None:
        self.run.report_progress(progress)

    def store_path(self, metadata: dict[str, Any]) -> Any:
        return self.run.store_checkpoint(metadata["steps_completed"], metadata)

    @contextmanager
    def restore_path(self, storage_id: str) -> Iterator[Path]:
        yield Path(self.info.checkpoint_dir) / storage_id

    def should_preempt(self) -> bool:
        return self.leave

    def of(self, kind: type) -> list[Any]:
        lines = (Path(self.info.run_dir) / "events.jsonl").read_bytes().splitlines(keepends=True)
        return [record for line in lines if isinstance(record := decode(line).record, kind)]

    @property
    def newest(self) -> str:
        return self.of(Checkpoint)[-1].uuid


def fit(core: Core, epochs: int = 3, *callbacks: Any, **options: Any) -> Any:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(
        *records(),
        batch_size=2,
        epochs=epochs,
        validation_data=records(4),
        verbose=0,
        shuffle=False,
        callbacks=[DeterminedCallback(core, **options), *callbacks],
    )
    return model


def weights(model: Any) -> list[Any]:
    return [one.tolist() for one in model.get_weights()]


def test_each_epoch_is_reported_and_stored(folder: Folder) -> None:
    core = Core(folder)
    fit(core)
    assert [(one.steps_completed, set(one.metrics)) for one in core.of(Training)] == [
        (steps, {"batches", "epochs", "loss"}) for steps in (5, 10, 15)
    ]
    assert [(one.steps_completed, set(one.metrics)) for one in core.of(Validation)] == [
        (steps, {"batches", "epochs", "val_loss"}) for steps in (5, 10, 15)
    ]
    assert [one.steps_completed for one in core.of(Checkpoint)] == [5, 10, 15]


def test_reports_every_few_batches_and_one_last_checkpoint(folder: Folder) -> None:
    core = Core(folder)
    fit(core, train_metrics_report_period=4, checkpoint_epochs=0)
    assert [one.steps_completed for one in core.of(Training)] == [4, 8, 12]
    assert [one.steps_completed for one in core.of(Checkpoint)] == [15]


def test_a_run_that_was_asked_to_leave_goes_on_where_it_was(folder: Folder) -> None:
    whole, first, second = Core(folder), Core(folder), Core(folder)
    expected = weights(fit(whole))
    first.leave = True
    fit(first, continue_id="7")
    resumed = weights(fit(second, checkpoint=first.newest, continue_id="7"))
    assert [one.steps_completed for one in first.of(Checkpoint)] == [5]
    assert [one.steps_completed for one in second.of(Checkpoint)] == [10, 15]
    assert resumed == expected


def test_another_id_takes_the_weights_and_begins_anew(folder: Folder) -> None:
    first, second = Core(folder), Core(folder)
    fit(first, continue_id="7")
    fit(second, 1, checkpoint=first.newest, continue_id="8")
    assert [one.steps_completed for one in second.of(Training)] == [5]
    assert second.of(Training)[0].metrics["loss"] < first.of(Training)[0].metrics["loss"]


def test_only_the_chief_reports(folder: Folder) -> None:
    core = Core(folder, rank=1)
    fit(core)
    assert core.of(Training) == core.of(Validation) == core.of(Checkpoint) == []


def test_a_wrong_period_is_refused(folder: Folder) -> None:
    with pytest.raises(InvalidTrialError, match="train_metrics_report_period is 'batch'"):
        DeterminedCallback(Core(folder), train_metrics_report_period="batch")


def test_a_script_under_the_real_core_api_goes_on_where_it_was_asked_to_leave(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(info: RunInfo, epochs: int, *callbacks: Any) -> Any:
        info.save(Path(info.run_dir))
        monkeypatch.setenv(RUN_DIR_VARIABLE, info.run_dir)
        known = det.get_cluster_info()
        assert known is not None
        with det.core.init() as context:
            options = {"checkpoint": known.latest_checkpoint, "continue_id": known.trial.trial_id}
            return fit(context, epochs, TensorBoard(context), *callbacks, **options)

    leave = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: os.kill(os.getpid(), signal.SIGTERM) if epoch == 0 else None
    )
    first = folder.info(entrypoint="python3 train.py")
    script(first, 3, leave)
    stored = of_run(first, Checkpoint)
    assert [one.steps_completed for one in stored][-1] < 15
    second = folder.info(entrypoint="python3 train.py", checkpoints=(stored[-1].uuid,))
    model = script(second, 3)
    assert [v.steps_completed for v in of_run(first, Validation) + of_run(second, Validation)] == [5, 10, 15]
    whole = folder.info(entrypoint="python3 train.py")
    assert weights(model) == weights(script(whole, 3))


def of_run(info: RunInfo, kind: type) -> list[Any]:
    lines = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines(keepends=True)
    return [record for line in lines if isinstance(record := decode(line).record, kind)]


def test_a_missing_tensorboard_is_said_and_harms_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    core = Core(folder)
    fit(core, 1, TensorBoard(core))
    assert "the package tensorboard is not installed" in caplog.text
    assert core.of(Validation)
