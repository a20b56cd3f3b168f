from __future__ import annotations

from typing import Any

import pytest
import torch

from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length
from determined.pytorch import LRScheduler
from determined.pytorch._lr_scheduler import Pace
from tests.unit.harness.pytorch.driving import Folder, TinyTrial

Mode = LRScheduler.StepMode


def steps(mode: Mode, *, frequency: int = 1, aggregation: int = 1, batches: int = 12) -> list[int]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = LRScheduler(torch.optim.lr_scheduler.ConstantLR(optimizer), mode, frequency)
    pace = Pace(epoch_length=5, aggregation_frequency=aggregation)
    return [pace.steps(scheduler, batch) for batch in range(batches)]


@pytest.mark.parametrize(
    ("mode", "frequency", "aggregation", "expected"),
    [
        (Mode.STEP_EVERY_BATCH, 1, 1, [1] * 12),
        (Mode.STEP_EVERY_BATCH, 3, 1, [0, 0, 1] * 4),
        (Mode.STEP_EVERY_BATCH, 1, 4, [0, 0, 0, 4] * 3),
        (Mode.STEP_EVERY_BATCH, 3, 4, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2]),
        (Mode.STEP_EVERY_EPOCH, 1, 1, [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]),
        (Mode.STEP_EVERY_EPOCH, 2, 1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
        (Mode.STEP_EVERY_EPOCH, 1, 4, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]),
        (Mode.STEP_EVERY_EPOCH, 1, 6, [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]),
        (Mode.STEP_EVERY_OPTIMIZER_STEP, 1, 4, [0, 0, 0, 1] * 3),
        (Mode.STEP_EVERY_OPTIMIZER_STEP, 2, 3, [0, 0, 0, 0, 0, 1] * 2),
        (Mode.MANUAL_STEP, 1, 1, [0] * 12),
    ],
)
def test_when_a_scheduler_steps(mode: Mode, frequency: int, aggregation: int, expected: list[int]) -> None:
    assert steps(mode, frequency=frequency, aggregation=aggregation) == expected


def test_without_a_length_there_is_no_epoch_to_step_for() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = LRScheduler(torch.optim.lr_scheduler.ConstantLR(optimizer), Mode.STEP_EVERY_EPOCH)
    assert Pace(None).steps(scheduler, 4) == 0


def test_the_harness_steps_what_was_wrapped_and_gives_it_back_as_it_was(folder: Folder) -> None:
    rates: list[float] = []

    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=1, gamma=0.1)
            assert context.wrap_lr_scheduler(scheduler, Mode.STEP_EVERY_BATCH, frequency=2) is scheduler

        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            rates.append(round(self.optimizer.param_groups[0]["lr"], 6))
            return super().train_batch(batch, epoch_idx, batch_idx)

    folder.drive(Trial, max_length=Length("batches", 5))
    assert rates == [0.01, 0.01, 0.001, 0.001, 0.0001]


def test_what_cannot_be_stepped_is_refused() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(InvalidTrialError, match="ReduceLROnPlateau steps on a metric"):
        LRScheduler(plateau, Mode.STEP_EVERY_EPOCH)
    assert LRScheduler(plateau, Mode.MANUAL_STEP).scheduler is plateau
    with pytest.raises(InvalidTrialError, match="frequency of a learning-rate scheduler is 0"):
        LRScheduler(plateau, Mode.MANUAL_STEP, 0)
    with pytest.raises(InvalidTrialError, match="step_mode of a learning-rate scheduler is 'epoch'"):
        LRScheduler(plateau, "epoch")  # type: ignore[arg-type]


def test_a_scheduler_of_an_optimizer_that_was_not_wrapped_is_refused(folder: Folder) -> None:
    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            other = torch.optim.SGD(self.model.parameters(), lr=1.0)
            context.wrap_lr_scheduler(torch.optim.lr_scheduler.StepLR(other, 1), Mode.STEP_EVERY_EPOCH)

    with pytest.raises(InvalidTrialError, match="an optimizer that was not wrapped"):
        folder.drive(Trial)
