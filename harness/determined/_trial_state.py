"""The framework-independent part of a checkpoint: its numbers, and the data to rebuild the trial."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._code import copy_code
from determined._errors import CheckpointError
from determined._loop import Position

if TYPE_CHECKING:
    from determined._run_info import RunInfo

TRIAL_STATE_FILE = "trial_state.json"
LOAD_DATA_FILE = "load_data.json"
CODE_DIR = "code"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialState:
    """The numbers of a checkpoint."""

    trial_id: int
    steps_completed: int
    epochs_completed: int
    validated: int | None
    data_seed: int  # of the order of the training data

    @property
    def position(self) -> Position:
        return Position(self.steps_completed, self.validated)


def write_numbers(directory: Path, numbers: TrialState) -> None:
    _write_json(directory / TRIAL_STATE_FILE, asdict(numbers))


def read_numbers(directory: Path) -> TrialState:
    """Read the numbers of a checkpoint.

    Raises:
        CheckpointError: unreadable.
    """
    path = directory / TRIAL_STATE_FILE
    try:
        return TrialState(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", hint="resume from a checkpoint that detbuild wrote"
        ) from error


def write_code(
    directory: Path, info: RunInfo, trial_class: type, *, trial_type: str, is_trainer: bool = False
) -> None:
    """Write the data to rebuild the trial elsewhere: its code, hyperparameters and config."""
    described = {
        "trial_type": trial_type,
        "experiment_config": dict(info.config),
        "hparams": dict(info.hparams),
        "trial_cls_spec": f"{trial_class.__module__}:{trial_class.__qualname__}",
        "is_trainer": is_trainer,
    }
    _write_json(directory / LOAD_DATA_FILE, described)
    copy_code(Path(info.context_dir), directory / CODE_DIR, (Path(info.checkpoint_dir), Path(info.run_dir)))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, default=str), encoding="utf-8")
