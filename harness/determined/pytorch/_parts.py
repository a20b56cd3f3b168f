"""The parts of a trial, before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from determined._contract.run_info import RunInfo
    from determined._run.lockstep import Lockstep
    from determined.pytorch._callbacks import Hooks
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._loaders import Loaders
    from determined.pytorch._trial import PyTorchTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a built trial."""

    trial: PyTorchTrial
    trial_class: type  # as the user wrote it
    context: PyTorchTrialContext
    hooks: Hooks
    loaders: Loaders
    info: RunInfo
    data_seed: int
    is_trainer: bool = False
    validation_limit: int | None = None  # batches
    lockstep: Lockstep | None = None  # with other processes
