"""What a package needs to add a framework: the training loop, and the run that a trial is part of.

The package has a base class of trials, a function that runs such a trial, and an entry point in the group
`determined.frameworks` that names this function. Its contract is `determined.testing.TrainableContract`.
"""

from determined._contract.errors import CheckpointError, InvalidHP, InvalidTrialError
from determined._contract.records import ExitReason, Stage
from determined._run.run import Run
from determined._trial.context import Trial
from determined._trial.loop import Loop, Position, Trainable
from determined._trial.schedule import Units
from determined._trial.state import TrialState, open_source, plan_of, write_code, write_numbers

__all__ = [
    "CheckpointError",
    "ExitReason",
    "InvalidHP",
    "InvalidTrialError",
    "Loop",
    "Position",
    "Run",
    "Stage",
    "Trainable",
    "Trial",
    "TrialState",
    "Units",
    "open_source",
    "plan_of",
    "write_code",
    "write_numbers",
]
