"""The files of a PyTorch checkpoint. `torch.load(..., weights_only=True)` reads all that is written here."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import torch

from determined._errors import CheckpointError
from determined._trial_state import write_numbers
from determined.pytorch._portable import freeze, thaw

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from determined._trial_state import TrialState
    from determined.pytorch._types import Untyped

STATE_FILE = "state_dict.pth"


def write(directory: Path, state: Mapping[str, Any], numbers: TrialState) -> None:
    frozen = {key: freeze(value, _described(key)) for key, value in state.items()}
    torch.save(frozen, directory / STATE_FILE)
    write_numbers(directory, numbers)


def read(directory: Path, device: torch.device | str = "cpu", **options: Untyped) -> dict[str, Any]:
    """The state of a checkpoint.

    Args:
        directory: the checkpoint.
        device: where its tensors go.
        options: of `torch.load`, instead of `weights_only=True`.

    Raises:
        CheckpointError: there is no state, or it cannot be read.
    """
    path = directory / STATE_FILE
    try:
        state = torch.load(path, map_location=device, **(options or {"weights_only": True}))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{directory} holds no {STATE_FILE}", mend="name the directory of a PyTorch checkpoint"
        ) from error
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}",
            mend="use another one; one of Determined's own needs torch_load_kwargs={'weights_only': False}",
        ) from error
    return {key: thaw(value) for key, value in state.items()}


def _described(key: str) -> str:
    return {
        "callbacks": "the state of a callback",
        "lr_schedulers_state_dict": "the state of a scheduler",
    }.get(key, f"{key} of the checkpoint")
