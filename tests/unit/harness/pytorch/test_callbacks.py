from __future__ import annotations

from typing import Any

import pytest

from determined._contract.errors import InvalidHP
from determined._contract.records import ExitReason
from determined._contract.run_info import Length
from determined.pytorch import PyTorchCallback, PyTorchTrial
from tests.unit.harness.pytorch.driving import Folder, TinyTrial

HOOKS = [name for name in vars(PyTorchCallback) if name.startswith("on_")]
CONFIG = {
    "min_validation_period": {"batches": 3},
    "min_checkpoint_period": {"batches": 4},
    "scheduling_unit": 5,
    "perform_initial_validation": True,
    "checkpoint_policy": "all",
}


def logging_callback(calls: list[str]) -> PyTorchCallback:
    def hook(name: str) -> Any:
        def called(_self: object, *args: object, **keywords: object) -> None:
            shown = "".join(f" {value}" for value in args if isinstance(value, int))
            calls.append(name + shown + "".join(f" {key}=" for key in keywords))

        return called

    members: dict[str, Any] = {name: hook(name) for name in HOOKS}
    members["on_training_epoch_start"] = lambda _self, epoch_idx: calls.append(f"epoch_start {epoch_idx}")
    members["on_training_epoch_end"] = lambda _self, epoch_idx: calls.append(f"epoch_end {epoch_idx}")
    members["state_dict"] = lambda _self: calls.append("state_dict") or {}
    return type("Logging", (PyTorchCallback,), members)()


def logging_trial(calls: list[str]) -> type[PyTorchTrial]:
    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            calls.append("__init__")
            super().__init__(context)

        def build_callbacks(self) -> dict[str, PyTorchCallback]:
            calls.append("build_callbacks")
            return {"log": logging_callback(calls)}

        def build_training_data_loader(self) -> Any:
            calls.append("training loader")
            return super().build_training_data_loader()

        def build_validation_data_loader(self) -> Any:
            calls.append("validation loader")
            return super().build_validation_data_loader()

        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            calls.append(f"train {epoch_idx} {batch_idx}")
            return super().train_batch(batch, epoch_idx, batch_idx)

        def evaluate_batch(self, batch: Any) -> Any:
            calls.append("evaluate")
            return super().evaluate_batch(batch)

    return Trial


START = [
    "__init__",
    "build_callbacks",
    "on_trial_startup 0",
    "training loader",
    "validation loader",
    "on_training_start",
]
VALIDATION = [
    "on_validation_start",
    "on_validation_epoch_start",
    "evaluate",
    "evaluate",
    "on_validation_epoch_end",
    "on_validation_end",
]
SAVE = [
    "state_dict",
    "on_checkpoint_save_start",
    "on_checkpoint_end",
    "on_checkpoint_write_end",
    "on_checkpoint_upload_end uuid=",
]
REPORT = ["on_training_workload_end avg_metrics= batch_metrics="]


def test_everything_is_called_in_the_documented_order(folder: Folder) -> None:
    calls: list[str] = []
    outcome = folder.drive(logging_trial(calls), config=CONFIG, max_length=Length("epochs", 2))
    assert calls == [
        *START,
        *VALIDATION,
        *("epoch_start 0", "train 0 0", "train 0 1", "train 0 2", *REPORT, *VALIDATION, *SAVE),
        *("train 0 3", *REPORT, *SAVE),
        *("train 0 4", "epoch_end 0", *REPORT),
        *("epoch_start 1", "train 1 5", *REPORT, *VALIDATION, *SAVE),
        *("train 1 6", "train 1 7", *REPORT, *SAVE),
        *("train 1 8", *REPORT, *VALIDATION, *SAVE),
        *("train 1 9", "epoch_end 1", *REPORT, *VALIDATION, *SAVE),
        "on_trial_shutdown",
    ]
    assert [steps for steps, _ in outcome.training] == [3, 4, 5, 6, 8, 9, 10]
    assert [steps for steps, _ in outcome.validations] == [0, 3, 6, 9, 10]
    assert outcome.checkpoints == [3, 4, 6, 8, 9, 10]


def test_a_resumed_trial_is_restored_after_its_loaders_are_built(folder: Folder) -> None:
    first = folder.drive(logging_trial([]), max_length=Length("batches", 3))
    calls: list[str] = []
    folder.drive(logging_trial(calls), max_length=Length("batches", 4), checkpoints=(first.newest,))
    assert calls[:8] == [
        "__init__",
        "build_callbacks",
        "on_trial_startup 3",
        "training loader",
        "validation loader",
        "on_checkpoint_load_start",
        "on_training_start",
        "train 0 3",
    ]


def test_shutdown_is_called_when_the_trial_fails(folder: Folder) -> None:
    calls: list[str] = []

    class Failing(logging_trial(calls)):  # type: ignore[misc]
        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        folder.drive(Failing)
    assert calls[-2:] == ["epoch_start 0", "on_trial_shutdown"]


def test_invalid_hyperparameters_are_checkpointed_and_passed_on(folder: Folder) -> None:
    class Invalid(TinyTrial):
        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            if batch_idx == 2:
                raise InvalidHP("too wide")
            return super().train_batch(batch, epoch_idx, batch_idx)

    with pytest.raises(InvalidHP, match="too wide"):
        folder.drive(Invalid)
    assert len(list(folder.checkpoints.iterdir())) == 1


def test_epoch_hooks_of_the_time_before_they_had_an_argument_are_called(folder: Folder) -> None:
    calls: list[str] = []

    class Old(PyTorchCallback):
        def on_training_epoch_start(self) -> None:  # type: ignore[override]
            calls.append("start")

        def on_training_epoch_end(self) -> None:  # type: ignore[override]
            calls.append("end")

    class Trial(TinyTrial):
        def build_callbacks(self) -> dict[str, PyTorchCallback]:
            return {"old": Old()}

    folder.drive(Trial, max_length=Length("batches", 6))
    assert calls == ["start", "end", "start"]


def test_a_trial_that_asks_to_stop_is_stopped(folder: Folder) -> None:
    class Stopping(TinyTrial):
        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            self.context.set_stop_requested(batch_idx >= 1)
            return super().train_batch(batch, epoch_idx, batch_idx)

    outcome = folder.drive(Stopping, config={"scheduling_unit": 4}, max_length=Length("batches", 100))
    assert (outcome.reason, outcome.checkpoints, outcome.validations) == (ExitReason.STOPPED, [4], [])


def test_a_trial_knows_where_it_is(folder: Folder) -> None:
    seen = []

    class Curious(TinyTrial):
        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            context = self.context
            here = (context.current_train_epoch(), context.current_train_batch())
            seen.append((*here, context.is_epoch_start(), context.is_epoch_end()))
            return super().train_batch(batch, epoch_idx, batch_idx)

    folder.drive(Curious, max_length=Length("batches", 6))
    assert seen == [
        (0, 0, True, False),
        (0, 1, False, False),
        (0, 2, False, False),
        (0, 3, False, False),
        (0, 4, False, True),
        (1, 5, True, False),
    ]
