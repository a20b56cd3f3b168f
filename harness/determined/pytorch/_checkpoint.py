"""The files of a PyTorch checkpoint, all readable by `torch.load(..., weights_only=True)`."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import torch

from determined._contract.errors import CheckpointError
from determined._trial.state import write_numbers
from determined.pytorch._forms import STATE_FILE, numpy_allowed, state_file, with_current_names
from determined.pytorch._portable import freeze, thaw

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from determined._trial.state import TrialState
    from determined.pytorch._types import Untyped


def frozen(state: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a state to values that safe loading accepts."""
    return {key: freeze(value, _described(key)) for key, value in state.items()}


def write(directory: Path, state: Mapping[str, Any], numbers: TrialState) -> None:
    """Write a frozen state."""
    torch.save(state, directory / STATE_FILE)
    write_numbers(directory, numbers)


def read(directory: Path, device: torch.device | str = "cpu", **options: Untyped) -> dict[str, Any]:
    """Read the state of a checkpoint.

    Args:
        directory: the checkpoint.
        device: for its tensors.
        options: for `torch.load`, in addition to `weights_only=True`.

    Raises:
        CheckpointError: there is no state, or it cannot be read.
    """
    path = state_file(directory)
    try:
        with numpy_allowed():
            state = torch.load(path, **{"map_location": device, "weights_only": True, **options})
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} contains more than weights and numbers: {_last_line(error)}",
            hint="if you trust it, use load_trial_from_checkpoint_path(..., "
            'torch_load_kwargs={"weights_only": False}); docs/checkpoints.md shows how to convert it',
        ) from error
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{path} needs a module that is not installed: {error}", hint="install it and load again"
        ) from error
    except (OSError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint="use another checkpoint") from error
    return {key: thaw(value) for key, value in with_current_names(state).items()}


def _last_line(error: Exception) -> str:
    """Return the line of torch's message that names the cause, without torch's own advice."""
    lines = [line for line in str(error).splitlines() if "GLOBAL" in line or "Error" in line]
    return (lines or str(error).splitlines() or [""])[0].strip().partition(" Please use")[0]


def _described(key: str) -> str:
    return {
        "callbacks": "the state of a callback",
        "lr_schedulers_state_dict": "the state of a scheduler",
    }.get(key, f"{key} of the checkpoint")
