"""When learning-rate schedulers step: LRScheduler and its step modes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from torch.optim.lr_scheduler import ReduceLROnPlateau

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

    from determined.pytorch._types import Untyped


class _StepMode(enum.Enum):
    """When a scheduler is stepped."""

    STEP_EVERY_EPOCH = 1
    STEP_EVERY_BATCH = 2
    MANUAL_STEP = 3
    STEP_EVERY_OPTIMIZER_STEP = 4


class LRScheduler:
    """A scheduler and the mode in which the harness steps it.

    Args:
        scheduler: any scheduler of torch.
        step_mode: when it is stepped.
        frequency: step once per this many epochs or batches.
    """

    StepMode: TypeAlias = _StepMode

    def __init__(self, scheduler: TorchScheduler, step_mode: _StepMode, frequency: int = 1) -> None:
        if not isinstance(step_mode, _StepMode):
            raise InvalidTrialError(
                f"step_mode of a learning-rate scheduler is {step_mode!r}",
                hint="pass one of LRScheduler.StepMode, e.g. LRScheduler.StepMode.STEP_EVERY_EPOCH",
            )
        if frequency < 1:
            raise InvalidTrialError(
                f"frequency of a learning-rate scheduler is {frequency}", hint="set it to 1 or more"
            )
        if isinstance(scheduler, ReduceLROnPlateau) and step_mode is not _StepMode.MANUAL_STEP:
            raise InvalidTrialError(
                "ReduceLROnPlateau steps on a metric, so the harness cannot step it",
                hint="use LRScheduler.StepMode.MANUAL_STEP and call scheduler.step(metric) in your trial",
            )
        self.scheduler = scheduler
        self.step_mode = step_mode
        self.frequency = frequency

    def __getattr__(self, name: str) -> Untyped:
        """Forward e.g. `step` and `get_last_lr`: trials of Determined 0.12 only have this object."""
        if name == "scheduler":  # during a copy
            raise AttributeError(name)
        return getattr(self.scheduler, name)


@dataclass(frozen=True, slots=True)
class Pace:
    """The step schedule of learning-rate schedulers."""

    epoch_length: int | None  # batches; None: endless
    aggregation_frequency: int = 1

    def steps(self, scheduler: LRScheduler, batch_idx: int) -> int:
        """Return the number of steps after batch `batch_idx`, counted from 0 over the trial.

        It is 0 without an optimizer step; after one it covers all batches aggregated in that step.
        """
        done, span, every = batch_idx + 1, self.aggregation_frequency, scheduler.frequency
        if done % span or scheduler.step_mode is _StepMode.MANUAL_STEP:
            return 0
        if scheduler.step_mode is _StepMode.STEP_EVERY_OPTIMIZER_STEP:
            return int(done % every == 0)  # in batches, as Determined counts
        if scheduler.step_mode is _StepMode.STEP_EVERY_BATCH:
            return done // every - (done - span) // every
        if self.epoch_length is None:
            return 0
        # an epoch counts as ended when the next optimizer step falls into a later one
        first, last = batch_idx // self.epoch_length, (batch_idx + span) // self.epoch_length
        return last // every - first // every
