"""The files of a PyTorch checkpoint. `torch.load(..., weights_only=True)` reads all that is written here."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from determined._errors import CheckpointError
from determined._loop import Position
from determined.pytorch._code import copy_code
from determined.pytorch._forms import LOAD_DATA_FILE, STATE_FILE, numpy_allowed, state_file, today
from determined.pytorch._portable import freeze, thaw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from determined._run_info import RunInfo
    from determined.pytorch._types import Untyped

TRIAL_STATE_FILE = "trial_state.json"
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


def frozen(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state as values that safe loading accepts."""
    return {key: freeze(value, _described(key)) for key, value in state.items()}


def write(directory: Path, state: Mapping[str, Any], numbers: TrialState) -> None:
    """Write a frozen state."""
    torch.save(state, directory / STATE_FILE)
    _write_json(directory / TRIAL_STATE_FILE, asdict(numbers))


def write_code(directory: Path, info: RunInfo, trial_class: type, *, is_trainer: bool) -> None:
    """What is needed to build the trial again elsewhere: its code, hyperparameters and config."""
    described = {
        "trial_type": "PyTorchTrial",
        "experiment_config": dict(info.config),
        "hparams": dict(info.hparams),
        "trial_cls_spec": f"{trial_class.__module__}:{trial_class.__qualname__}",
        "is_trainer": is_trainer,
    }
    _write_json(directory / LOAD_DATA_FILE, described)
    copy_code(Path(info.context_dir), directory / CODE_DIR, (Path(info.checkpoint_dir), Path(info.run_dir)))


def read(directory: Path, device: torch.device | str = "cpu", **options: Untyped) -> dict[str, Any]:
    """The state of a checkpoint.

    Args:
        directory: the checkpoint.
        device: where its tensors go.
        options: of `torch.load`, besides `weights_only=True`.

    Raises:
        CheckpointError: there is no state, or it cannot be read.
    """
    path = state_file(directory)
    try:
        with numpy_allowed():
            state = torch.load(path, map_location=device, **{"weights_only": True, **options})
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than weights and numbers: {_last_line(error)}",
            mend="if you trust it, load_trial_from_checkpoint_path(..., "
            'torch_load_kwargs={"weights_only": False}); docs/checkpoints.md shows how to convert it',
        ) from error
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{path} needs a module that is not here: {error}", mend="install it, and load again"
        ) from error
    except (OSError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", mend="use another checkpoint") from error
    return {key: thaw(value) for key, value in today(state).items()}


def read_numbers(directory: Path) -> TrialState:
    """The numbers of a checkpoint.

    Raises:
        CheckpointError: they cannot be read.
    """
    path = directory / TRIAL_STATE_FILE
    try:
        return TrialState(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", mend="resume from a checkpoint that detbuild wrote"
        ) from error


def _last_line(error: Exception) -> str:
    """What torch says it met; the advice around it is about torch."""
    lines = [line for line in str(error).splitlines() if "GLOBAL" in line or "Error" in line]
    return (lines or str(error).splitlines() or [""])[0].strip().partition(" Please use")[0]


def _described(key: str) -> str:
    return {
        "callbacks": "the state of a callback",
        "lr_schedulers_state_dict": "the state of a scheduler",
    }.get(key, f"{key} of the checkpoint")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, default=str), encoding="utf-8")
