"""What is in the event files, where the package tensorboard is installed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from determined._contract.run_info import Length
from determined.pytorch import _tensorboard
from tests.unit.harness.pytorch.driving import Folder, TinyTrial

CONFIG = {"scheduling_unit": 5, "min_validation_period": {"batches": 5}}


class Named(TinyTrial):
    def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
        if batch_idx == 0:
            self.context.get_tensorboard_writer().add_scalar("of/its/own", 1.0, 0)
        return {**super().train_batch(batch, epoch_idx, batch_idx), "text": "none"}

    def evaluate_batch(self, batch: torch.Tensor) -> Any:
        return {"validation_loss": 0.5, "accuracy": 0.25}


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(directory.glob("events.out.tfevents.*")):
        for event in loader.EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return found


def test_names_and_steps_are_those_of_determined(folder: Folder) -> None:
    pytest.importorskip("tensorboard")
    outcome = folder.drive(Named, config=CONFIG, max_length=Length("batches", 10))
    found = scalars(folder.path / "run-0" / "tensorboard")
    assert found["of/its/own"] == [(0, 1.0)]
    assert found["Determined/val_accuracy"] == [(5, 0.25), (10, 0.25)]
    assert found["Determined/validation_loss"] == [(5, 0.5), (10, 0.5)]
    losses = [(steps, metrics["loss"]) for steps, metrics in outcome.training]
    assert found["Determined/loss"] == [(steps, pytest.approx(loss)) for steps, loss in losses]
    assert "Determined/text" not in found


def test_nothing_is_written_when_the_trial_does_not_want_it(folder: Folder) -> None:
    class Silent(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            context.set_enable_tensorboard_logging(False)
            assert not context.get_enable_tensorboard_logging()

    folder.drive(Silent, config=CONFIG)
    assert not (folder.path / "run-0" / "tensorboard").exists()


@pytest.mark.parametrize(("writes", "warnings"), [(True, 1), (False, 0)])
def test_without_the_package_a_trial_is_warned_once_that_writes_files_of_its_own(
    folder: Folder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    writes: bool,
    warnings: int,
) -> None:
    class Writing(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            if writes:
                context.get_tensorboard_writer().add_scalar("mine", 1.0, 0)

    logging.getLogger("determined").setLevel(logging.WARNING)
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard.writer", None)
    _tensorboard._warn_once.cache_clear()
    for _ in range(2):
        folder.drive(Writing, config=CONFIG, max_length=Length("batches", 10))
    said = [record.getMessage() for record in caplog.records if "TensorBoard" in record.getMessage()]
    assert len(said) == warnings
    assert all("add `tensorboard` to requirements.txt" in each for each in said)


def test_of_very_many_reports_in_a_second_a_hundred_are_drawn_and_the_last(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = _tensorboard.TensorBoardWriter(tmp_path)
    for step in range(1, 451):
        board.add("", step, {"loss": float(step)})
    board.close()
    points = scalars(tmp_path)["Determined/loss"]
    assert len(points) <= 110
    assert points[-1] == (450, 450.0)
    assert points == sorted(points)
